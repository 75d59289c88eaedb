"""Keys of pseudonyms: RFC 5869's own vectors, files that only their owner can read, and nothing that shows a key."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from persona_cli.errors import BadSettings, CannotWrite, MissingInput, PersonaError, Refused, UsageError
from persona_cli.privacy.recipients import VARIABLE, Key, find_key, hkdf, new_key, read_key, subkey
from persona_cli.workspace.home import create

SECRET = bytes(range(32))


@pytest.mark.parametrize(
    ("secret", "salt", "info", "length", "expected"),
    [
        (
            b"\x0b" * 22,
            bytes(range(13)),
            bytes(range(0xF0, 0xFA)),
            42,
            "3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf34007208d5b887185865",
        ),
        (
            bytes(range(0x50)),
            bytes(range(0x60, 0xB0)),
            bytes(range(0xB0, 0x100)),
            82,
            "b11e398dc80327a1c8e7f78c596a49344f012eda2d4efad8a050cc4c19afa97c"
            "59045a99cac7827271cb41c65e590e09da3275600c2f09b8367793a9aca3db71"
            "cc30c58179ec3e87c14c01d5c1f3434f1d87",
        ),
        (
            b"\x0b" * 22,
            b"",
            b"",
            42,
            "8da4e775a563c18f715f802a063c5a31b8a11f5c5ee1879ec3454e5f3c738d2d9d201395faa4b61a96c8",
        ),
    ],
)
def test_hkdf_gives_what_rfc_5869_says(secret: bytes, salt: bytes, info: bytes, length: int, expected: str) -> None:
    assert hkdf(secret, salt, info, length).hex() == expected


@pytest.mark.parametrize("length", [0, 8161])
def test_hkdf_has_an_end(length: int) -> None:
    with pytest.raises(ValueError, match="8,160"):
        hkdf(SECRET, b"", b"", length)


def test_a_new_key_is_random_for_its_owner_only_and_never_replaced(tmp_path: Path) -> None:
    old_mask = os.umask(0)
    try:
        made = new_key(tmp_path / "a.key")
    finally:
        os.umask(old_mask)
    assert stat.S_IMODE((tmp_path / "a.key").stat().st_mode) == 0o600
    assert read_key(tmp_path / "a.key") == made and len(made.secret) == 32
    assert new_key(tmp_path / "b.key").id != made.id
    before = (tmp_path / "a.key").read_bytes()
    with pytest.raises(CannotWrite, match="exists already"):
        new_key(tmp_path / "a.key")
    assert (tmp_path / "a.key").read_bytes() == before


def test_a_link_is_no_way_to_write_a_key_somewhere_else(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "target")
    with pytest.raises(CannotWrite):
        new_key(tmp_path / "link")
    assert not (tmp_path / "target").exists()


def test_a_key_is_never_shown(tmp_path: Path) -> None:
    key = new_key(tmp_path / "a.key")
    hexadecimal = key.secret.hex()
    assert hexadecimal not in repr(key) and key.id in repr(key)
    assert len(key.id) == 16 and key.id not in hexadecimal
    (tmp_path / "a.key").write_text(hexadecimal[:-1])
    with pytest.raises(BadSettings) as caught:
        read_key(tmp_path / "a.key")
    assert hexadecimal[:20] not in str(caught.value)


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o666, 0o700, 0o622])
def test_a_file_that_others_can_open_is_refused(tmp_path: Path, mode: int) -> None:
    new_key(tmp_path / "a.key")
    (tmp_path / "a.key").chmod(mode)
    with pytest.raises(Refused, match=f"mode {mode:04o}; expected 0600"):
        read_key(tmp_path / "a.key")


def test_a_key_in_a_workspace_is_refused_also_behind_a_link(tmp_path: Path) -> None:
    create(tmp_path / "shop")
    with pytest.raises(Refused, match="lies in the workspace"):
        new_key(tmp_path / "shop" / "a.key")
    new_key(tmp_path / "a.key").secret.hex()
    (tmp_path / "shop" / "sub").mkdir()
    (tmp_path / "a.key").rename(tmp_path / "shop" / "sub" / "a.key")
    (tmp_path / "link").symlink_to(tmp_path / "shop" / "sub")
    (tmp_path / "file").symlink_to(tmp_path / "shop" / "sub" / "a.key")
    for path in (tmp_path / "shop/sub/a.key", tmp_path / "link" / "a.key", tmp_path / "file"):
        with pytest.raises(Refused, match="lies in the workspace"):
            read_key(path)


@pytest.mark.parametrize(
    ("text", "kind"),
    [("", BadSettings), ("secret", BadSettings), ("0" * 64, BadSettings), ("g" * 64, BadSettings)],
)
def test_what_is_no_key_is_not_taken_for_one(text: str, kind: type[PersonaError], tmp_path: Path) -> None:
    with pytest.raises(kind):
        find_key(None, {VARIABLE: text})
    (tmp_path / "key").write_text(text)
    (tmp_path / "key").chmod(0o600)
    with pytest.raises(kind):
        find_key(tmp_path / "key", {VARIABLE: SECRET.hex()})


def test_a_key_comes_from_the_file_else_from_the_environment(tmp_path: Path) -> None:
    key = new_key(tmp_path / "a.key")
    environment = {VARIABLE: SECRET.hex() + "\n"}
    assert find_key(tmp_path / "a.key", environment) == key
    assert find_key(None, environment) == Key.of(SECRET)
    with pytest.raises(MissingInput):
        read_key(tmp_path / "other.key")
    os.mkfifo(tmp_path / "pipe", 0o600)
    for no_file in (tmp_path, tmp_path / "pipe"):
        with pytest.raises(BadSettings, match="is no file"):
            read_key(no_file)


def test_subkeys_of_domains_differ_and_names_of_domains_are_plain() -> None:
    key = Key.of(SECRET)
    assert len({subkey(key, "a"), subkey(key, "b"), subkey(Key.of(SECRET[::-1]), "a")}) == 3
    for name in ("", "Partner", "a b", "-a", "ä", "a" * 64, "a\n"):
        with pytest.raises(UsageError):
            subkey(key, name)
