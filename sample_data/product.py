"""Deskwell in words and numbers: what it sells, to whom, when and where they work, how much they do."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import NamedTuple

DAY = 86_400
BEGIN = int(datetime(2026, 6, 1, tzinfo=UTC).timestamp())
END = int(datetime(2026, 11, 1, tzinfo=UTC).timestamp())
USERS, ACCOUNTS, STRANGERS = 2_000, 240, 160

# category → topic → what it is about (three nouns a topic)
CATEGORIES: dict[str, dict[str, tuple[str, str, str]]] = {
    "invoicing": {
        "reminders": ("payment reminders", "late payers", "dunning letters"),
        "recurring": ("recurring invoices", "subscriptions", "billing cycles"),
        "taxes": ("sales tax", "tax reports", "tax exemptions"),
    },
    "payroll": {
        "salaries": ("salary runs", "payslips", "bonus payments"),
        "leave": ("leave requests", "holiday calendars", "sick days"),
        "expenses": ("expense claims", "travel costs", "mileage logs"),
    },
    "projects": {
        "planning": ("project plans", "milestones", "Gantt charts"),
        "tasks": ("task boards", "checklists", "backlogs"),
        "time": ("time sheets", "time budgets", "billable hours"),
    },
    "sales": {
        "leads": ("lead lists", "lead scoring", "cold calls"),
        "offers": ("quotes", "proposals", "price lists"),
        "pipeline": ("sales pipelines", "deal reviews", "forecasts"),
    },
    "support": {
        "tickets": ("ticket queues", "response times", "escalations"),
        "knowledge": ("help articles", "canned answers", "product guides"),
        "satisfaction": ("satisfaction surveys", "complaints", "call notes"),
    },
    "marketing": {
        "newsletters": ("newsletters", "mailing lists", "subject lines"),
        "landing": ("landing pages", "sign-up forms", "page tests"),
        "social": ("social posts", "content calendars", "video clips"),
    },
    "analytics": {
        "dashboards": ("dashboards", "key figures", "weekly reports"),
        "cohorts": ("cohort tables", "churn", "retention curves"),
        "exports": ("data exports", "spreadsheets", "scheduled queries"),
    },
    "security": {
        "access": ("access rights", "roles", "guest accounts"),
        "signin": ("single sign-on", "passkeys", "password rules"),
        "audits": ("audit logs", "backups", "risk registers"),
    },
    "hiring": {
        "postings": ("job postings", "career pages", "referrals"),
        "interviews": ("interview guides", "scorecards", "trial days"),
        "onboarding": ("first weeks", "welcome packs", "mentor programmes"),
    },
    "integrations": {
        "banking": ("bank feeds", "card statements", "direct debits"),
        "calendars": ("shared calendars", "meeting rooms", "time zones"),
        "automation": ("webhooks", "automation rules", "imports"),
    },
}
KINDS = ("article", "template", "course", "feature")
KIND_OF_TOPIC = ("article", "article", "article", "article", "template", "template", "template", "course", "feature")
TITLES = {
    "article": ("{A} explained", "Five mistakes with {a}", "How we tamed our {a}", "{A} for beginners"),
    "template": ("Template: {a}", "Ready-made {a}", "{A}, one page"),
    "course": ("Short course: {a}",),
    "feature": ("{A} board",),
}
SENTENCES = (
    "What {a} are for, and when to leave them alone.",
    "With examples from teams of five to fifty people.",
    "Covers {b} and {c} as well.",
    "Takes about ten minutes.",
    "Start from {b}, then move on to {a}.",
    "Written with people who handle {c} every day.",
    "Includes a list of what usually goes wrong with {a}.",
    "Connects {a} with {c}.",
)
INDUSTRIES = ("software", "retail", "construction", "health", "education", "consulting", "logistics", "media")
PLANS = ("free", "team", "business")
PLAN_PRICE = {"team": 29, "business": 99}


class Place(NamedTuple):
    """Where a user lives; `offset` is the zone's distance from UTC in summer, in hours."""

    country: str
    locale: str
    tz: str
    currency: str
    offset: int
    weight: int


PLACES = (
    Place("DE", "de-DE", "Europe/Berlin", "EUR", 2, 26),
    Place("US", "en-US", "America/New_York", "USD", -4, 24),
    Place("GB", "en-GB", "Europe/London", "GBP", 1, 15),
    Place("FR", "fr-FR", "Europe/Paris", "EUR", 2, 12),
    Place("NL", "nl-NL", "Europe/Amsterdam", "EUR", 2, 8),
    Place("IN", "en-IN", "Asia/Kolkata", "INR", 5, 7),
    Place("BR", "pt-BR", "America/Sao_Paulo", "BRL", -3, 5),
    Place("JP", "ja-JP", "Asia/Tokyo", "JPY", 9, 3),
)
DEVICES = {
    "desktop": (("Windows", "Chrome"), ("Windows", "Edge"), ("macOS", "Safari"), ("Linux", "Firefox")),
    "mobile": (("iOS", "Safari"), ("Android", "Chrome")),
    "tablet": (("iPadOS", "Safari"),),
}
HOURS = (1, 0, 0, 0, 0, 1, 3, 8, 20, 30, 30, 24, 16, 24, 28, 26, 20, 12, 8, 7, 6, 5, 3, 2)
WEEKDAYS = (10, 11, 11, 10, 8, 2, 2)
REFERRERS = (None, None, None, None, "google.com", "google.com", "linkedin.com", "news.ycombinator.com")
CAMPAIGNS = (None, None, None, None, None, "summer-2026", "webinar-july", "autumn-offer")
# Seconds on a page, shortest to longest: a table of quantiles instead of a distribution.
READING = (25, 40, 55, 70, 85, 105, 130, 165, 220, 340)
GLANCING = (2, 3, 4, 5, 6, 8, 10, 13, 18, 1_500)
# share of users in per cent, fewest and most visits of items
ACTIVITY = {
    "none": (3, 0, 0),
    "short": (40, 1, 4),
    "medium": (37, 4, 14),
    "long": (15, 15, 45),
    "very long": (5, 40, 90),
}
