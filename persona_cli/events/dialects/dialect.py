"""What a dialect is: how the events of another system become records with canonical names.

A dialect is a table (`sources`: where each canonical field is looked for) and two functions. What `records` makes of
one input record goes through the same judgement as native input: verdicts, types and quarantine are as everywhere.

Paths in `sources`, in the order tried; the first that leads to something (not null, not empty text) counts:

- `properties.product_id`: the member of an object; a flat name that holds dots is found as it stands;
- `items[].item_id`: the member of the element that is being read, where the list `items` becomes one record an element;
- `=view`: the text `view`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from persona_cli.events.judge import ASCII_BLANK, Rejected
from persona_cli.events.opening import Format
from persona_cli.events.schema import Kind, json_type

# Canonical event type → their names, in lower case words joined by underscores.
EVENT_TYPES: dict[str, str] = {
    "view": "product_viewed viewed_product view_item product_view item_view view_product detail_view viewed_item",
    "impression": "product_list_viewed view_item_list list_view product_impression",
    "click": "product_clicked clicked_product select_item item_click clicks product_click list_click",
    "add_to_cart": "product_added added_product add_to_cart addtocart carts cart add_to_basket",
    "remove_from_cart": "product_removed removed_product remove_from_cart remove_from_basket",
    "view_cart": "cart_viewed view_cart",
    "begin_checkout": "checkout_started begin_checkout",
    "purchase": "order_completed completed_order purchase purchased transaction orders item_purchased",
    "refund": "order_refunded refund",
    "save": "product_added_to_wishlist add_to_wishlist save saved bookmark favorite favourite",
    "share": "product_shared share",
    "rating": "product_reviewed rating rate rated",
    "search": "products_searched search searched view_search_results site_search",
    "page_view": "page_view page_viewed pageview viewed_page page",
    "screen_view": "screen_view screen_viewed screenview screen",
    "scroll": "scroll",
    "message_open": "email_opened message_open push_notification_tapped",
    "message_click": "email_link_clicked message_click",
    "unsubscribe": "unsubscribed unsubscribe email_unsubscribed",
    "identify": "identify",
    "alias": "alias",
    "group": "group",
}
_OURS = {theirs: ours for ours, names in EVENT_TYPES.items() for theirs in names.split()}
_BETWEEN = re.compile(r"[\s_\-]+")


def event_type(theirs: Any) -> Any:
    """persona's word for an event (`Product Viewed` → `view`); a name that has none, and what is not text, as it is."""
    if not isinstance(theirs, str):
        return theirs
    return _OURS.get(_BETWEEN.sub("_", theirs.strip().lower()), theirs)


Record = dict[str, Any]
Sources = Mapping[str, tuple[str, ...]]

__all__ = [
    "NATIVE", "Choice", "Dialect", "Dropped", "Plain", "Record", "Rejected", "Sources", "elements", "numbered", "pick",
    "read", "unbatched", "value_at", "without",
]  # fmt: skip


class Dropped(Exception):
    """A record that is understood and holds nothing to keep; the message is the reason it is counted under."""


def unbatched(record: Record) -> list[Any]:
    """The records of a batch object `{"batch": […]}`; any other record stands for itself."""
    batch = record.get("batch")
    return batch if isinstance(batch, list) else [record]


@dataclass(frozen=True)
class Plain:
    """Rows of a table of text for which `records` only gives columns other names, so that they can be read together.

    It holds for rows whose columns `seconds` are whole seconds since 1970, in which all of `needed` and none of `empty`
    hold something; other rows go through `records`. `worded`: event types become persona's words.
    """

    sources: Sources
    seconds: tuple[str, ...] = ()
    needed: tuple[str, ...] = ()
    empty: tuple[str, ...] = ()
    worded: bool = False


@dataclass(frozen=True)
class Dialect:
    """One system's events. Modules of this package offer theirs as `DIALECTS`, other distributions as entry points.

    `recognises` gets up to 100 first records (as they come from the file, after `unpack`) and says whether all of them
    are of this dialect: strictly, by their keys, so that no native file and no other dialect's matches. Where it says
    no, it is asked about each of them alone: nine in ten are enough.

    `records` makes of one record (after `unpack`) the native records it stands for: canonical names, flat, context
    fields flat too, times as ISO text or whole numbers (s, ms, µs, ns by size), what has no canonical name in the
    object `props`. `user_agent` and `ip` are passed on as they are; the door decides about them. It raises
    Rejected(reason) for what cannot be read and Dropped(reason) for what holds nothing to keep, and must not change the
    record it is given.
    """

    name: str  # "segment"
    about: str  # one line for --list-dialects
    formats: tuple[Format, ...]
    sources: Sources  # canonical field → paths; `records` reads it with `read`, docs/events.md prints it
    recognises: Callable[[Sequence[Record]], bool]
    records: Callable[[Record], list[Record]]
    kind: Kind = "events"
    # One record of the file → the records in it, each of which is counted, judged and quarantined by itself.
    unpack: Callable[[Record], list[Any]] = unbatched
    # What a record says about the person or the account: native rows of the kinds users and accounts.
    attributes: Callable[[Record], list[tuple[Kind, Record]]] | None = None
    # Tables without a header row: the names of the columns, and what stands between the cells (default by format).
    columns: tuple[str, ...] = ()
    separator: str = ""
    encoding: str = "utf-8"  # of tables of text; "latin-1" for old files
    # How a table of text with these columns is read at once, where rows are only renamed; None where they are not.
    plain: Callable[[Sequence[str]], Plain | None] | None = None
    notes: tuple[str, ...] = ()  # what the table of fields cannot say; sentences for docs/events.md


@dataclass(frozen=True)
class Choice:
    """Which dialects a file may be of; `sure` when it is one of these whatever its keys are."""

    dialects: tuple[Dialect, ...] = ()
    sure: bool = False


NATIVE = Choice()


def value_at(record: Record, path: str) -> Any:
    """What lies at a dotted path, None when nothing does (empty text is nothing).

    Raises Rejected where the path leads through something that is not an object.
    """
    value = record.get(path)
    if value is None:
        keys = _keys(path)
        if len(keys) == 1 or (value := record.get(keys[0])) is None:
            return None
        for depth in range(1, len(keys)):
            if not isinstance(value, dict):
                raise Rejected(f"{'.'.join(keys[:depth])}: expected an object, got {json_type(value)}")
            if (value := value.get(keys[depth])) is None:
                return None
    return None if isinstance(value, str) and not value.strip(ASCII_BLANK) else value


@lru_cache(4_096)
def _keys(path: str) -> tuple[str, ...]:
    return tuple(path.split("."))


def pick(record: Record, paths: Iterable[str], element: Record | None = None) -> Any:
    """The first of `paths` that leads to something; `list[].name` is looked up in `element`."""
    for path in paths:
        if path.startswith("="):
            return path[1:]
        _, is_element, name = path.partition("[].")
        place = element if is_element else record
        value = None if place is None else value_at(place, name if is_element else path)
        if value is not None:
            return value
    return None


def read(sources: Sources, record: Record, element: Record | None = None) -> Record:
    """The canonical fields of one record by the table `sources`; what is not there is left out."""
    found = ((name, pick(record, paths, element)) for name, paths in sources.items())
    return {name: value for name, value in found if value is not None}


def elements(record: Record, path: str) -> list[Record]:
    """The objects of the list at `path`, [] when there is none; raises Rejected for what is not a list of objects."""
    found = value_at(record, path)
    if found is None:
        return []
    if not isinstance(found, list):
        raise Rejected(f"{path}: expected an array, got {json_type(found)}")
    for element in found:
        if not isinstance(element, dict):
            raise Rejected(f"{path}: expected an array of objects, got {json_type(element)}")
    return found


def without(record: Record, paths: Iterable[str]) -> Record:
    """A copy of the record less what lies at `paths` (dotted), less nulls and objects that this leaves empty."""
    return _rest(record, "", paths if isinstance(paths, set) else set(paths))


def _rest(place: Record, above: str, taken: set[str]) -> Record:
    left: Record = {}
    for key, value in place.items():
        if value is None or (above + key if above else key) in taken:
            continue
        if isinstance(value, dict):
            value = _rest(value, f"{above}{key}.", taken)
            if not value:
                continue
        left[key] = value
    return left


def numbered(event_id: Any, number: int) -> Any:
    """The id of the `number`-th (from 0) record made of one event: ids stay unique, the first keeps its own."""
    return event_id if not number or not isinstance(event_id, str | int) else f"{event_id}/{number}"
