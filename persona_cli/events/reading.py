"""Inputs → batches of judged rows and rejects, in the order of the file, in flat memory.

Every line or record is read exactly once: `read` = accepted rows + rejects of each batch. A blank line is a record and
is rejected as one; a line number counts from 1, in tables the header is line 1.

The fast reader of JSON lines takes what `layouts` and `columns` vouch for; all other lines go through `judge`, which
alone rejects. `reader="plain"` sends every line through `judge`: the same verdicts, slowly.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import pyarrow as pa

from persona_cli.events import opening
from persona_cli.events.columns import Columns
from persona_cli.events.ids import event_id, event_ids
from persona_cli.events.judge import Rejected, Rules, judge, parse_json
from persona_cli.events.layouts import Layout, layout_of
from persona_cli.events.mapping import Mapping, Path, resolve
from persona_cli.events.scan import Positions, Scan, scan
from persona_cli.events.schema import ARROW_TYPES, FIELDS, MAX_RAW_BYTES, Kind, judged_schema
from persona_cli.workspace.settings import Settings
