"""One simulation for people: what it comes to in sentences, tables for a terminal, and a page with charts.

Made from the document alone (`simulate --json`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from persona_cli.reports import charts, pages
from persona_cli.reports.pages import Html, Section
from persona_cli.reports.parts import Part

Entry = Mapping[str, Any]

_NAMES = {"clicks": "clicks a user", "clicked": "share of users who click", "ctr": "clicks an item shown"}
_TITLES = {"aa": "A/A test", "ab": "A/B test", "interleave": "Interleaving", "bandit": "Bandit"}


def parts(result: Entry) -> list[Part]:
    """What it comes to, the figures behind it, and what it rests on."""
    curve, regret = _curve(result), _batches(result)
    return [
        Part(prose=conclusion(result)),
        Part(columns=("over the runs", *_OVER_RUNS), rows=_over_runs(result), after=[_HELD]),
        *([Part(columns=curve[0], rows=curve[1])] if curve[1] else []),
        *([Part(columns=regret[0], rows=regret[1])] if regret[1] else []),
        Part(prose=basis(result)),
    ]


def html(result: Entry) -> str:
    """The page; Unavailable without the extra `report`."""
    charts.check()
    first, *more = conclusion(result)
    top = [pages.paragraph(first, "lead"), *(pages.paragraph(line) for line in more)]
    curve, regret = _curve(result), _batches(result)
    sections = [
        Section("Power" if result["kind"] != "aa" else "False alarms", [_power_chart(result), _folded(curve)]),
        Section("Regret", [_regret_chart(result), _folded(regret)]),
        Section(
            "Estimates",
            [_estimates_chart(result), pages.table(["over the runs", *_OVER_RUNS], _over_runs(result), _HELD)],
        ),
        Section("What it rests on", [pages.listing(basis(result))]),
    ]
    named = result["a"] if result["kind"] == "aa" else f"{result['a']} and {result['b']}"
    foot = f"{result['runs']:,} runs of {result['users']:,} users, seed {result['seed']}"
    return pages.page(f"{_TITLES[result['kind']]} of {named}, simulated", top, sections, foot)


def conclusion(result: Entry) -> list[str]:
    """The answer first, a sentence each."""
    kind = result["kind"]
    if kind == "aa":
        return _false_alarms(result)
    true = result["truth"]
    a, b, metric = result["a"], result["b"], _NAMES[result["metric"]]
    told = [
        f"{b} against {a}: {_value(true['b'])} {metric} instead of {_value(true['a'])}"
        + (f" ({_percent(true['lift'], signed=True)})" if true["lift"] is not None else "")
        + ", if people are as simulated."
    ]
    asked = f"{_percent(result['power'])} power at {_percent(result['alpha'])}"
    test = result["ab"]["needed"] if kind == "interleave" else result["needed"]
    if test is None:
        told.append(f"The difference is smaller than {true['people']:,} simulated people can tell from 0.")
    else:
        told.append(f"An A/B test needs {test['users']:,} users, about {_days(test['days'])}, for {asked}.")
    if kind == "interleave":
        told += _fewer(result, asked)
    if kind == "bandit":
        told += _saved(result)
    else:
        told.append(f"With {result['users']:,} users {_chance(result['found'])} of runs found a difference.")
    if (sign := result["sign"])["right"] is not None and sign["told"]:
        told.append(f"Of the {sign['told']:,} runs that did, {sign['right']:,} had the right sign.")
    return told


def _false_alarms(result: Entry) -> list[str]:
    peeking, found = result["peeking"], result["found"]
    told = [
        f"Where nothing differs, {_chance(found)} of runs find something at {_percent(result['alpha'])}: "
        + ("as it should be." if found["low"] <= result["alpha"] <= found["high"] else "not as it should be."),
        f"Looked at {peeking['looks']} times on the way, {_chance(peeking['fixed'])} do at one look or another; by the "
        f"always-valid interval {_chance(peeking['always_valid'])}.",
    ]
    if (lift := result["detectable"]["lift"]) is not None:
        told.append(
            f"{result['users']:,} users are enough to find a difference of {_percent(lift)} in "
            f"{_NAMES[result['metric']]} with {_percent(result['power'])} power."
        )
    return told


def _fewer(result: Entry, asked: str) -> list[str]:
    needed, beside = result["needed"], result["ab"]
    if needed is None:
        return ["Interleaving does not tell the two apart either, with as many people as were simulated."]
    told = f"Interleaving ({result['method']}) needs {needed['users']:,} users, about {_days(needed['days'])}"
    if beside["ratio"] is None:
        return [f"{told}, for {asked}."]
    span = f"{beside['low']:.1f} to {beside['high']:.1f}"
    return [f"{told}: {beside['ratio']:.1f} times fewer ({span}) than the A/B test."]


def _saved(result: Entry) -> list[str]:
    regret = result["regret"]
    return [
        f"Over {result['users']:,} users the bandit ({result['policy']}) loses {_value(regret['mean'])} "
        f"{'clicks' if result['metric'] == 'clicks' else 'users who click'} to the better one (90 % of runs: "
        f"{_value(regret['q05'])} to {_value(regret['q95'])}); an equal split loses {_value(regret['equal_split'])}.",
        f"Its adaptive interval holds the truth in {_chance(result['estimate']['coverage'])} of runs, the usual one "
        f"in {_chance(result['naive']['coverage'])}, and {_chance(result['found'])} found the difference.",
    ]


def basis(result: Entry) -> list[str]:
    """What the figures rest on, a sentence each."""
    people, clicks, spread = result["people"], result["clicks"], result["spread"]
    size = {"lognormal": "sd of the logarithm", "gamma": "variance"}.get(spread["law"])
    differ = f"{spread['law']}, {size} {spread['size']:.2f}" if size else "none found"
    shares = f"{_percent(people['relevant_a'])} of the entries of A's are what the user turned to later"
    if result["kind"] != "aa":
        shares += f", {_percent(people['relevant_b'])} of B's; they share {_percent(people['overlap'])}"
    return [
        result["headline"],
        f"people: drawn from {people['users']:,} users with something new after the cut, {people['visits']:.2g} visits "
        f"each in {people['days']:g} days",
        f"lists of {people['lists']}: {shares}",
        clicks["told"],
        f"chance of a click on what is looked at: {_percent(clicks['relevant'])} where the user turned to it later, "
        f"{_percent(clicks['base'])} (the base rate) elsewhere",
        f"spread between users: {differ}, fitted on {spread['from']} of {spread['people']:,} users",
        *result["notes"],
    ]


_HELD = "truth: what all simulated people would do; held: share of runs whose interval holds it"
_OVER_RUNS = ("mean", "sd", "5 %", "median", "95 %", "truth", "held")


def _over_runs(result: Entry) -> list[list[str]]:
    """Rows of the estimate, and of what it may be read beside."""
    named = "preference for B" if result["kind"] == "interleave" else _NAMES[result["metric"]]
    found = [[named, *_figures(result["estimate"])]]
    if "naive" in result:
        found = [
            [f"{named}, adaptive", *found[0][1:]],
            [f"{named}, as if shares were fixed", *_figures(result["naive"])],
        ]
    if "lift" in result:
        found.append(["relative", *_figures({**result["lift"], "truth": result["truth"]["lift"]})])
    if "regret" in result:
        found.append(["regret", *_figures(result["regret"])])
    return found


def _figures(one: Entry) -> list[str]:
    values = [_value(one.get(name)) for name in ("mean", "sd", "q05", "median", "q95", "truth")]
    return [*values, _percent(one["coverage"]["value"]) if "coverage" in one else ""]


def _curve(result: Entry) -> tuple[list[str], list[list[str]]]:
    """Power (false alarms of an A/A test) by users."""
    name = "false alarms" if result["kind"] == "aa" else "power"
    rows = [
        [f"{one['users']:,}", _percent(one["value"]), f"{_percent(one['low'])} to {_percent(one['high'])}"]
        for one in result.get("curve") or ()
    ]
    return ["users", name, "95 % of the simulation"], rows


def _batches(result: Entry) -> tuple[list[str], list[list[str]]]:
    rows = [
        [f"{one['users']:,}", _value(one["regret"]), _value(one["equal"]), _percent(one["share_b"])]
        for one in result.get("batches") or ()
    ]
    return ["users", "regret", "of an equal split", "share of B"], rows


def _power_chart(result: Entry) -> Html:
    named = "false alarms" if result["kind"] == "aa" else "power"
    points = [
        {"series": "simulated", "x": one["users"], "y": one["value"], "low": one["low"], "high": one["high"]}
        for one in result.get("curve") or ()
    ]
    points += [{"series": "closed form", "x": one["users"], "y": one["power"]} for one in result.get("planned") or ()]
    drawn = charts.lines(points, x="users", y=named, label=f"{named} by users", log=True, zero=True)
    needed = result.get("needed")
    told = "share of runs that found a difference, with the interval of the simulation"
    if needed:
        told += f"; {_percent(result['power'])} at {needed['users']:,} users"
    return pages.figure(drawn, told)


def _regret_chart(result: Entry) -> Html:
    points = [
        {"series": series, "x": one["users"], "y": one[key]}
        for series, key in ((result.get("policy"), "regret"), ("equal split", "equal"))
        for one in result.get("batches") or ()
    ]
    drawn = charts.lines(points, x="users", y="regret", label="regret by users", zero=True)
    return pages.figure(drawn, "what is lost by those who did not get the better one, mean of the runs")


def _estimates_chart(result: Entry) -> Html:
    named = "preference for B" if result["kind"] == "interleave" else f"difference in {_NAMES[result['metric']]}"
    points = [
        {"series": "runs", "x": (bar["low"] + bar["high"]) / 2, "y": bar["runs"]} for bar in result["distribution"]
    ]
    drawn = charts.lines(points, x=named, y="runs", label=f"runs by {named}", zero=True)
    return pages.figure(drawn, f"runs by what they estimated; the truth is {_value(result['estimate']['truth'])}")


def _folded(table: tuple[list[str], list[list[str]]]) -> Html:
    return pages.details("figures", [pages.table(*table)]) if table[1] else Html("")


def _chance(one: Entry) -> str:
    """A share of runs with what chance alone of the simulation leaves open."""
    return f"{_percent(one['value'])} ({_percent(one['low'])} to {_percent(one['high'])})"


def _percent(share: float, signed: bool = False) -> str:
    return f"{100 * share:+.3g} %" if signed else f"{100 * share:.3g} %"


def _value(figure: float | None) -> str:
    return "" if figure is None else f"{figure:.4g}"


def _days(days: float) -> str:
    return f"{days:,.0f} days"
