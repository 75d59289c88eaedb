"""The names that other systems give to what persona has a word for: one table for all dialects."""

from __future__ import annotations

import re
from typing import Any

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
