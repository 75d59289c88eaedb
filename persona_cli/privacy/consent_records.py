"""A receipt as a document of its own, in the information structure of ISO/IEC TS 27560:2023, and its digest.

The record holds who (a keyed digest), what for, on what notice, by whom, and every word up to the receipt. The receipt
that goes to the person is this record with its SHA-256 over canonical JSON: keys sorted, no spaces, UTF-8.
`consent_record.schema.json` beside this file is the JSON Schema of both.
"""

from __future__ import annotations

import hashlib
import json
from datetime import datetime
from pathlib import Path
from typing import Any

import polars as pl

from persona_cli.consent.receipts import Receipt, in_order, parent, receipt, scan
from persona_cli.privacy.recipients import by_recipient
from persona_cli.workspace.home import Home

SCHEMA = "consent_record.schema.json"
VERSION = "ISO/IEC TS 27560:2023, persona 1"
_CONTROLLER = "controller"
_METHODS = {
    "personalization": "lists and decisions made for the person from their own events",
    "analytics": "measuring and segmenting by events",
    "model_training": "models of items learned from events of many people",
    "messaging": "messages to the person on a channel",
}
_RIGHTS = ("access", "rectification", "erasure", "restriction", "portability", "objection", "withdrawal", "complaint")
_CATEGORIES = ("identifiers", "behaviour", "context of use")


def schema() -> dict[str, Any]:
    """The JSON Schema that every document of `consent_receipt` validates against."""
    found: dict[str, Any] = json.loads(Path(__file__).with_name(SCHEMA).read_text("utf-8"))
    return found


def consent_receipt(home: Home, receipt_id: str) -> dict[str, Any]:
    """The receipt: {receipt: {receipt_id, record_sha256, …}, record: {…}}. Raises MissingInput."""
    one = receipt(home, receipt_id)
    made = _record(home, one)
    about = {
        "receipt_id": one.receipt_id,
        "schema_version": VERSION,
        "record_id": made["record_id"],
        "record_sha256": digest(made),
    }
    return {"receipt": about, "record": made}


def digest(record: dict[str, Any]) -> str:
    """SHA-256 (hex) of a record as canonical JSON."""
    text = json.dumps(record, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()


def _record(home: Home, one: Receipt) -> dict[str, Any]:
    settings, kind = home.settings, parent(one.purpose)
    months = settings.whole("privacy.retention.events_months")
    return {
        "schema_version": VERSION,
        "record_id": one.receipt_id,
        "pii_principal_id": one.subject,
        "pii_processing": {
            "privacy_notice": one.notice,
            "privacy_notice_sha256": one.notice_sha256,
            "purposes": [
                {
                    "purpose": one.purpose,
                    "lawful_basis": settings.text(f"privacy.purposes.{kind}.basis") or None,
                    "pii_information": [{"pii_type": name} for name in _CATEGORIES],
                    "pii_controllers": [_CONTROLLER],
                    "collection_method": one.source,
                    "processing_method": _METHODS[kind],
                    "storage_locations": ["the controller's workspace"],
                    "retention_period": f"P{months}M" if months else "until erased",
                    "recipient_third_parties": sorted(by_recipient(home)),
                    "withdrawal_method": settings.text("privacy.controller.contact") or None,
                    "privacy_rights": list(_RIGHTS),
                }
            ],
        },
        "party_identification": [
            {
                "party_id": _CONTROLLER,
                "party_role": "PII controller",
                "party_name": settings.text("privacy.controller.name") or None,
                "party_contact": settings.text("privacy.controller.contact") or None,
            }
        ],
        "events": [
            {
                "event_time": _text(said.at),
                "event_type": "signal" if said.source and "signal" in said.source else "statement",
                "event_state": said.state,
                "entity_id": said.subject,
                "evidence": said.proof,
            }
            for said in _until(home, one)
        ],
    }


def _until(home: Home, one: Receipt) -> list[Receipt]:
    """The words of the same digest about the same purpose, up to this one."""
    same = scan(home).filter(pl.col("subject") == one.subject, pl.col("purpose") == one.purpose).collect()
    words = [Receipt(*row) for row in in_order(same).iter_rows()]
    return words[: words.index(one) + 1]


def _text(moment: datetime) -> str:
    return moment.isoformat(timespec="microseconds").replace("+00:00", "Z")
