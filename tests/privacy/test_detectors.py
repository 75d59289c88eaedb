"""What the detectors find, of the frozen plants and of numbers from standards, and what they leave alone."""

from __future__ import annotations

import json
import random
import string
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from planted import KINDS, Plant, plants

from persona_cli.privacy import identities
from persona_cli.privacy.detectors import GATE, NAME_GATE, decoded, find, mask
from persona_cli.privacy.scan import Finding, Scanner

SHARED = Path(__file__).parents[3] / "shared" / "data"
LOGS = sorted(folder.name for folder in SHARED.iterdir() if any(folder.glob("*.parquet"))) if SHARED.is_dir() else []
QUICK = ("hetrec-lastfm", "ml-100k", "telco-churn")


def scanned(plant: Plant) -> list[Finding]:
    scanner = Scanner()
    scanner.add(plant.table, pl.DataFrame({plant.field: [plant.value]}))
    return scanner.findings()


def test_the_plants_are_the_frozen_ones() -> None:
    assert Counter(plant.kind for plant in plants()) == dict.fromkeys(KINDS, 25)


def test_nearly_all_plants_are_found_as_what_they_are() -> None:
    found = Counter(plant.kind for plant in plants() if any(one.kind == plant.kind for one in scanned(plant)))
    assert sum(found.values()) >= 285
    assert min(found[kind] for kind in KINDS) >= 23


def test_what_is_found_of_a_plant_is_its_secret() -> None:
    """A piece too short would let the rest through a mask."""
    for plant in plants():
        if plant.field != "props":
            pieces = [one.text for one in find(plant.value) if one.kind == plant.kind]
            assert any(decoded(plant.secret) in piece for piece in pieces), (plant.kind, plant.value[:60])


@pytest.mark.parametrize("name", [pytest.param(log, marks=[] if log in QUICK else pytest.mark.slow) for log in LOGS])
def test_real_logs_raise_few_false_alarms(name: str) -> None:
    values = flagged = 0
    for file in sorted((SHARED / name).glob("*.parquet")):
        frame = pl.read_parquet(file).cast(pl.String, strict=False)
        values += sum(frame[column].drop_nulls().n_unique() for column in frame.columns)
        scanner = Scanner()
        scanner.add(file.name, frame)
        flagged += sum(one.values for one in scanner.findings())
    assert flagged <= 0.01 * values


def leaves(value: Any, name: str = "") -> Iterator[tuple[str, str]]:
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from leaves(inner, key)
    elif isinstance(value, list):
        for inner in value:
            yield from leaves(inner, name)
    elif isinstance(value, str):
        yield name, value


@pytest.mark.skipif(not LOGS, reason="needs ../shared/data")
def test_in_webhooks_only_addresses_are_found() -> None:
    lines = (SHARED / "event-dialects" / "github_webhooks.jsonl").read_text().splitlines()
    found = {(name, one.kind) for line in lines for name, text in leaves(json.loads(line)) for one in find(text, name)}
    assert found == {("email", "email")}


def digits(rng: random.Random, n: int) -> str:
    return str(rng.randrange(10 ** (n - 1), 10**n))


IDS: dict[str, Callable[[random.Random], str]] = {
    "uuid": lambda rng: str(uuid.UUID(int=rng.getrandbits(128))),
    "hex": lambda rng: f"{rng.getrandbits(128):032x}",
    "sha256": lambda rng: f"{rng.getrandbits(256):064x}",
    "digits_9": lambda rng: digits(rng, 9),
    "digits_10": lambda rng: digits(rng, 10),
    "digits_11": lambda rng: digits(rng, 11),
    "ean_13": lambda rng: digits(rng, 13),
    "digits_16": lambda rng: digits(rng, 16),
    "snowflake": lambda rng: str(rng.getrandbits(63)),
    "seconds": lambda rng: str(rng.randrange(1_500_000_000, 1_800_000_000)),
    "milliseconds": lambda rng: str(rng.randrange(1_500_000_000_000, 1_800_000_000_000)),
    "time": lambda rng: f"2026-{rng.randrange(1, 13):02d}-{rng.randrange(1, 29):02d}T{rng.randrange(24):02d}:07:59.1Z",
    "stamp": lambda rng: f"26-{rng.randrange(1, 13):02d}-{rng.randrange(1, 29):02d}-{rng.randrange(24):02d}-07-59",
    "version": lambda rng: f"{rng.randrange(20)}.{rng.randrange(20)}.{rng.randrange(5000)}",
    "agent": lambda rng: f"Mozilla/5.0 Chrome/{rng.randrange(90, 130)}.0.{rng.randrange(256)}.{rng.randrange(256)}",
    "sku": lambda rng: "".join(rng.choices(string.ascii_uppercase, k=2)) + digits(rng, 6),
    "asin": lambda rng: "B0" + "".join(rng.choices(string.ascii_uppercase + string.digits, k=8)),
    "youtube": lambda rng: "".join(rng.choices(string.ascii_letters + string.digits + "-_", k=11)),
    "slug": lambda rng: f"/shop/{rng.randrange(100)}-red-shoes-{digits(rng, 5)}.html?page=2&sort=price",
    "file": lambda rng: f"https://cdn.example.com/img/logo{rng.randrange(99)}@2x.png",
    "invoice": lambda rng: f"INV-{digits(rng, 4)}-{digits(rng, 6)}",
    "class": lambda rng: f"std::vec::Vec{rng.randrange(9)}",
    "clock": lambda rng: f"{rng.randrange(24):02d}:{rng.randrange(60):02d}:{rng.randrange(60):02d}",
}  # fmt: skip


@pytest.mark.parametrize("what", IDS)
def test_ids_and_numbers_of_logs_are_left_alone(what: str) -> None:
    rng = random.Random(5)
    values = sorted({IDS[what](rng) for _ in range(3_000)})
    scanner = Scanner()
    scanner.add("events", pl.DataFrame({"item_id": values}))
    scanner.add("events", pl.DataFrame({"props": [json.dumps({"ref": value}) for value in values]}))
    flagged = {one.field: one.values for one in scanner.findings()}
    assert max(flagged.values(), default=0) <= 0.01 * len(values), flagged


@pytest.mark.parametrize(
    ("check", "right"),
    [
        (identities.luhn, "79927398713"),
        (identities.iban, "GB82WEST12345698765432"),
        (identities.iban, "DE89370400440532013000"),
        (identities.cpf, "11144477735"),
        (identities.dni, "12345678Z"),
        (identities.codice_fiscale, "RSSMRA85T10A562S"),
        (identities.nir, "255081416802538"),
        (identities.verhoeff, "2363"),
    ],
)
def test_check_digits_by_examples_of_their_standards(check: Callable[[str], bool], right: str) -> None:
    assert check(right)
    place = next(place for place in reversed(range(len(right))) if right[place].isdigit())
    for other in set("0123456789") - {right[place]}:
        assert not check(right[:place] + other + right[place + 1 :])


@pytest.mark.parametrize(
    ("text", "name", "kinds"),
    [
        ("0770090046", "", []),
        ("0770090046", "contact.phone", ["phone"]),
        ("265471983", "", []),
        ("265471983", "applicant.ssn", ["national_id"]),
        ("https://example.com/?phone=4930901820", "", ["phone"]),
        ("1.2.3.4", "app_version", []),
        ("127.0.0.1", "", []),
        ("git@github.com:someone/project.git", "ssh_url", []),
        ("https://example.com/?page_token=abcdefgh", "", []),
        ("https://example.com/?key=shoes", "", []),
        ("hunter2hunter2", "login.password", ["secret"]),
        ("00:11:22:33:44:55:66:77:88:99:aa:bb:cc:dd:ee:ff", "fingerprint", []),
        ("anna%2540example.com", "", ["email"]),
        ("jo@example.com, 203.0.113.9 and +49 30 901820", "", ["email", "ipv4", "phone"]),
    ],
)
def test_names_and_surroundings_decide(text: str, name: str, kinds: list[str]) -> None:
    assert [one.kind for one in find(text, name)] == kinds


def test_the_gate_lets_every_plant_through() -> None:
    """Vectorised first look and careful second look agree: what the gate stops is never looked at."""
    for plant in plants():
        gate = f"(?:{GATE})|(?:{NAME_GATE})" if plant.field == "props" else GATE
        assert pl.Series([plant.value]).str.contains(gate)[0], plant


@given(st.text())
def test_any_text_can_be_looked_at(text: str) -> None:
    for one in find(text, "phone"):
        assert decoded(text)[one.start : one.end] == one.text


@given(st.text(min_size=1))
def test_a_mask_has_no_letter_or_digit(text: str) -> None:
    assert not any(sign.isalnum() for sign in mask(text))
    assert len(mask(text)) <= 40
