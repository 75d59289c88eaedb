"""What users do: sessions, visits of items, reactions, as native events in the order of their making."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from dice import Dice
from product import (
    ACTIVITY,
    BEGIN,
    CAMPAIGNS,
    CATEGORIES,
    DAY,
    DEVICES,
    END,
    GLANCING,
    HOURS,
    PLACES,
    PLAN_PRICE,
    PLANS,
    READING,
    REFERRERS,
    WEEKDAYS,
    Place,
)
from world import Item, User, make_taste


class Simulation:
    """Users at work; `events` fills with (time of arrival, native event)."""

    def __init__(self, dice: Dice, items: list[Item], accounts: list[dict[str, Any]]) -> None:
        self.dice = dice
        self.items = items
        self.accounts = accounts
        self.events: list[tuple[int, dict[str, Any]]] = []
        self.sessions = 0
        self.ids = 0
        self.by_topic: dict[tuple[int, int], list[int]] = {}
        names = [(category, topic) for category, topics in CATEGORIES.items() for topic in topics]
        for position, item in enumerate(items):
            place = names.index((item.category, item.topic))
            self.by_topic.setdefault(divmod(place, 3), []).append(position)

    def run(self, user: User) -> None:
        """All that one user does, sessions from an anonymous first visit to the last day."""
        dice = self.dice
        _, low, high = ACTIVITY[user.activity]
        visits = dice.between(low, high)
        if not visits:
            return
        begin = max(BEGIN, user.signed_up)
        anon = f"anon-{dice.below(16**8):08x}"
        first_seen_here = user.signed_up >= BEGIN
        seen: set[int] = set()
        times = sorted(self.moment(begin, user.place) for _ in range(max(1, round(visits / 2.5))))
        for number, start in enumerate(times):
            now = max(start, begin)
            share = visits // len(times) + (1 if number < visits % len(times) else 0)
            device = user.device if dice.chance(80) else user.second_device
            anonymous = number == 0 and first_seen_here and dice.chance(70)
            session = Session(self, user, device, anon if anonymous or dice.chance(10) else None)
            if anonymous:
                # Looks around first, signs in half-way: the events before carry the anonymous id alone.
                session.signed_in = False
                now = session.visit(now, user, seen) if dice.chance(80) else session.page(now)
            now = session.sign_in(now)
            for _ in range(share):
                now = session.visit(now, user, seen)
            if dice.chance(6):
                session.add(now, "settings_change", target="notifications")
        account = self.accounts[user.account]
        if account["upgraded"] and user.role == "owner" and account["upgraded"] > begin:
            plan = PLANS[PLANS.index(account["plan"]) + 1]
            session = Session(self, user, user.device, None)
            session.add(
                account["upgraded"], "upgrade", target=plan, value=PLAN_PRICE[plan], currency=user.place.currency
            )

    def stranger(self, number: int) -> None:
        """Somebody who looks around and never signs in."""
        dice = self.dice
        place = PLACES[dice.weighted([p.weight for p in PLACES])]
        likes, topics = make_taste(dice, dice.below(8)), tuple(dice.below(3) for _ in CATEGORIES)
        device = ("desktop", "mobile")[dice.weighted((45, 55))]
        user = User("", 0, place, "", device, device, BEGIN, "short", likes, topics, None)
        session = Session(self, user, device, f"anon-{dice.below(16**8):08x}")
        session.signed_in = False
        now = session.page(self.moment(BEGIN, place))
        seen: set[int] = set()
        for _ in range(dice.between(0, 3)):
            now = session.visit(now, user, seen)

    def moment(self, begin: int, place: Place) -> int:
        """A moment in working hours there, more of them towards the end: the product grows."""
        dice = self.dice
        days = max((END - begin) // DAY, 1)
        while True:
            day = max(dice.below(days), dice.below(days)) if dice.chance(25) else dice.below(days)
            midnight = begin // DAY * DAY + day * DAY
            if dice.below(11) < WEEKDAYS[(midnight // DAY + 3) % 7]:
                break
        hour = dice.weighted(HOURS) - place.offset
        return min(max(midnight + hour * 3600 + dice.below(3600), begin), END - 3 * 3600)

    def choose(self, user: User, now: int, seen: set[int], device: str) -> tuple[int, bool]:
        """The item opened next, and whether it is to the user's taste."""
        dice = self.dice
        if seen and dice.chance(18):
            again = sorted(seen)[dice.below(len(seen))]
            if self.open(again, now):
                return again, True
        if dice.chance(15):
            # Fashion: what the product shows to everybody.
            weights = [item.weight**2 if self.open(p, now) else 0 for p, item in enumerate(self.items)]
            found = dice.weighted(weights)
            return found, self.items[found].category == self.favourite(user, now)
        likes = user.drift[1] if user.drift and now >= user.drift[0] else user.likes
        for _ in range(20):
            category = dice.weighted(likes)
            topic = (user.topics[category] + dice.weighted((76, 12, 12))) % 3
            positions = self.by_topic[category, topic]
            weights = [self.weight(position, now, seen, device) for position in positions]
            if sum(weights):
                return positions[dice.weighted(weights)], likes[category] > 5
        return dice.weighted([item.weight if self.open(p, now) else 0 for p, item in enumerate(self.items)]), False

    def favourite(self, user: User, now: int) -> str:
        likes = user.drift[1] if user.drift and now >= user.drift[0] else user.likes
        return list(CATEGORIES)[likes.index(max(likes))]

    def open(self, position: int, now: int) -> bool:
        item = self.items[position]
        return item.published <= now and (item.withdrawn is None or now < item.withdrawn)

    def weight(self, position: int, now: int, seen: set[int], device: str) -> int:
        if position in seen or not self.open(position, now):
            return 0
        item = self.items[position]
        # On a telephone people read; at a desk they work.
        suits = 3 if (device == "mobile") == (item.kind == "article") else 1
        recent = 2 if now - item.published < 21 * DAY else 1
        return item.weight * suits * recent


class Session:
    """One sitting: every event of it shares an id and a context."""

    def __init__(self, simulation: Simulation, user: User, device: str, anon: str | None) -> None:
        self.simulation, self.user, self.anon = simulation, user, anon
        self.signed_in = True
        dice = simulation.dice
        simulation.sessions += 1
        self.id = f"s{simulation.sessions}"
        system, browser = DEVICES[device][dice.below(len(DEVICES[device])) if dice.chance(15) else 0]
        place = user.place
        self.device = device
        self.context: dict[str, Any] = {"device": device, "os": system, "browser": browser, "country": place.country}
        self.context |= {"locale": place.locale, "tz": place.tz}
        referrer, campaign = dice.one(REFERRERS), dice.one(CAMPAIGNS)
        if referrer and not dice.chance(40):
            self.context["referrer"] = referrer
        if campaign and not dice.chance(60):
            self.context["campaign"] = campaign

    def add(self, now: int, kind: str, item: Item | None = None, **more: Any) -> None:
        """Put one event down; one in a hundred of a mobile device arrives hours late."""
        dice, user = self.simulation.dice, self.user
        event: dict[str, Any] = {}
        if kind in ("purchase", "upgrade"):  # money carries an id of its own
            self.simulation.ids += 1
            event["event_id"] = f"pay-{self.simulation.ids:05d}"
        if self.signed_in:
            event["user_id"] = user.user_id
            event["account_id"] = self.simulation.accounts[user.account]["account_id"]
        if self.anon is not None:
            event["anon_id"] = self.anon
        event["event_type"] = kind
        if item is not None:
            event["item_id"] = item.item_id
        event |= {name: value for name, value in more.items() if value is not None}
        event["timestamp"] = iso(now)
        arrival = now
        if self.device == "mobile" and dice.chance(1):
            arrival = now + dice.between(3_600, 2 * DAY)
            event["received_at"] = iso(arrival)
        event["session_id"] = self.id
        event["context"] = self.context
        self.simulation.events.append((arrival, event))

    def page(self, now: int) -> int:
        self.add(now, "page_view", target=self.simulation.dice.one(("home", "pricing", "tour", "library")))
        return now + self.simulation.dice.between(5, 60)

    def sign_in(self, now: int) -> int:
        dice = self.simulation.dice
        self.signed_in = True
        if dice.chance(35):
            self.add(now, "login", target=dice.one(("password", "sso", "link")))
        return now + dice.between(2, 20)

    def visit(self, now: int, user: User, seen: set[int]) -> int:
        """One item: how it was found, how it was used, and what was said about it; the time afterwards."""
        dice, simulation = self.simulation.dice, self.simulation
        position, liked = simulation.choose(user, now, seen, self.device)
        item = simulation.items[position]
        known = position in seen
        seen.add(position)
        now = self.find(now, item, known)
        if item.kind == "feature":
            self.add(now, "feature_use", item, target=item.topic)
            now += dice.between(20, 400)
        else:
            now = self.read(now, item, liked)
        return self.react(now, item, liked, known) + dice.between(5, 120)

    def find(self, now: int, item: Item, known: bool) -> int:
        dice = self.simulation.dice
        if dice.chance(10):
            self.add(now, "search", query=f"{item.topic} {item.kind}s" if dice.chance(50) else item.topic)
            now += dice.between(3, 20)
        elif dice.chance(5):
            self.add(now, "message_open", item, target="newsletter")
            now += dice.between(2, 10)
        elif dice.chance(7):
            self.add(now, "impression", item, target="home_list", position=dice.between(1, 12))
            now += dice.between(1, 9)
        elif not known and dice.chance(20):
            self.add(now, "page_view", target=item.category)
            now += dice.between(2, 30)
        if dice.chance(45):
            self.add(
                now, "click", item, target=dice.one(("card", "card", "link", "menu")), position=dice.between(1, 12)
            )
            now += dice.between(1, 4)
        return now

    def read(self, now: int, item: Item, liked: bool) -> int:
        dice = self.simulation.dice
        self.add(now, "view", item)
        seconds = dice.quantile(READING if liked and dice.chance(85) else GLANCING)
        now += seconds
        if dice.chance(45):
            self.add(now, "dwell", item, value=seconds)
        if item.kind == "article" and dice.chance(15):
            share = dice.between(60, 100) if liked else dice.between(5, 50)
            self.add(now, "scroll", item, value=share / 100)
        return now + 1

    def react(self, now: int, item: Item, liked: bool, known: bool) -> int:
        dice, place = self.simulation.dice, self.user.place
        if dice.chance(4):
            stars = dice.one((4, 4, 5, 5, 5, 3) if liked else (1, 2, 2, 3, 3, 4))
            self.add(now, "rating", item, value=stars)
        if not liked:
            for percent, kind in ((3, "thumbs_down"), (3, "show_less"), (0.6, "block")):
                if dice.chance(percent):
                    self.add(now, kind, item)
            return now
        if not known and dice.chance(9):
            self.add(now, "save", item)
        if dice.chance(5):
            self.add(now, "thumbs_up", item)
        if item.price and not known and self.signed_in and dice.chance(22):
            now += dice.between(3, 20)
            self.add(now, "add_to_cart", item, value=item.price, currency=place.currency)
            if dice.chance(55):
                now += dice.between(20, 200)
                self.add(now, "purchase", item, value=item.price, currency=place.currency)
        return now


def iso(moment: int) -> str:
    return datetime.fromtimestamp(moment, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
