"""Goals: strict, sandboxed, and bounded in what they can take of a worker."""

from __future__ import annotations

import time
from typing import Any

import pytest

from holdfast import InputInvalid
from holdfast.activities.goals import render

GIVEN: dict[str, Any] = {
    "name": "Bo",
    "items": [{"a": 1, "who": "x"}, {"a": 2, "who": "y"}],
    "prices": {"tea": 1.5, "cake": 3},
}


@pytest.mark.parametrize(
    ("goal", "expected"),
    [
        ("Greet {{ name }}.", "Greet Bo."),
        ("{{ name|upper }} {{ name.lower() }} {{ name[:1] }}", "BO bo B"),
        ("{{ 'Dear ' ~ name ~ 3 }} {{ 'a' + name }}", "Dear Bo3 aBo"),
        ("{% for each in items %}{{ loop.index }}:{{ each.a }};{% endfor %}", "1:1;2:2;"),
        ("{% for each in items if each.a > 1 %}{{ each.who }}{% else %}none{% endfor %}", "y"),
        ("{% for x in [] %}{% else %}none{% endfor %}", "none"),
        ("{% for each in items %}{{ loop.cycle('odd', 'even') }} {% endfor %}", "odd even "),
        ("{% for k, v in prices.items() %}{{ k }}={{ v }} {% endfor %}", "tea=1.5 cake=3 "),
        ("{% if name in ('Bo', 'Al') %}yes{% elif name %}no{% endif %}", "yes"),
        ("{{ items|map(attribute='who')|join(', ') }}", "x, y"),
        ("{{ items|selectattr('who', 'in', ['x'])|map(attribute='a')|list }}", "[1]"),
        ("{{ items|sum(attribute='a') }} {{ prices.values()|max }}", "3 3"),
        ("{{ prices|tojson }}", '{"tea": 1.5, "cake": 3}'),
        ("{{ items[0]|tojson(indent=2) }}", '{\n  "a": 1,\n  "who": "x"\n}'),
        ("{{ missing|default('nobody') }}", "nobody"),
        ("{{ 'known' if missing is defined else 'unknown' }}", "unknown"),
        ("{% set whole = name ~ '!' %}{{ whole }}", "Bo!"),
        ("{% with other = name %}{{ other }}{% endwith %}", "Bo"),
        ("{{ 2 * 3 + 7 % 4 - 10 // 4 }}", "7"),
        ("{% for n in range(3) %}{{ n }}{% endfor %}", "012"),
        ("{% raw %}{{ name }}{% endraw %}{# a note #}", "{{ name }}"),
        ("<b>{{ name }}</b> & 'so'", "<b>Bo</b> & 'so'"),
        ("{{ items|groupby('who')|length }} {{ 'a b'.split()|first }}", "2 a"),
        ("{{ name|replace('o', '0')|indent(4, true) }}", "    B0"),
    ],
)
def test_what_people_write_renders(goal: str, expected: str) -> None:
    assert render(goal, GIVEN) == expected


@pytest.mark.parametrize(
    "goal",
    [
        "{{ nmae }}",
        "{{ items[7].a }}",
        "{{ items[0].b }}",
        "{% if nmae %}{% endif %}",
        "{% for x in nmae %}{% endfor %}",
        "{{ nmae() }}",
        "{{ prices.coffee + 1 }}",
        "{{ 'a' ~ nmae }}",
        "{{ items|map(attribute='b')|join }}",
    ],
)
def test_a_missing_name_is_told_and_not_left_out(goal: str) -> None:
    with pytest.raises(InputInvalid, match=r"goal: can't be rendered: .*(undefined|no attribute|no element)"):
        render(goal, GIVEN)


@pytest.mark.parametrize(
    "goal",
    [
        "{{",
        "{% for x in items %}",
        "{{ name|nope }}",
        "{% nope %}",
        "{{ name is nope }}",
        "{{ 1 / 0 }}",
        "{{ name - 1 }}",
        "{{ items|join(",
        "{{ name|int + name }}",
        "{{ " + "(" * 5000 + "1" + ")" * 5000 + " }}",
        "{% for x in items %}" * 25 + "{% endfor %}" * 25,
    ],
    ids=lambda goal: goal[:24],
)
def test_a_bad_template_is_told(goal: str) -> None:
    with pytest.raises(InputInvalid) as refused:
        render(goal, GIVEN)
    assert list(refused.value.errors) == ["goal"]
    assert len(str(refused.value)) < 500


@pytest.mark.parametrize(
    "goal",
    [
        "{{ ''.__class__.__mro__ }}",
        "{{ ''['__class__'] }}",
        "{{ name|attr('__class__') }}",
        "{{ items|map(attribute='__class__')|join }}",
        "{{ items|map(attribute='__class__.__mro__')|join }}",
        "{{ '{0.__class__.__mro__}'.format(name) }}",
        "{{ '{0.__class__}'.format_map(prices) }}",
        "{{ range.__globals__ }}",
        "{{ self.__init__.__globals__ }}",
        "{{ self._TemplateReference__context }}",
        "{{ cycler.__init__.__globals__ }}",
        "{{ lipsum() }}",
        "{{ namespace() }}",
        "{{ dict(a=1) }}",
        "{{ joiner() }}",
        "{{ items.append(1) }}",
        "{{ items.clear() }}",
        "{{ prices.update({'tea': 0}) }}",
        "{{ prices.pop('tea') }}",
        "{% include 'other' %}",
        "{% import 'other' as other %}",
        "{% from 'other' import x %}",
        "{% extends 'other' %}",
        "{% block x %}{% endblock %}",
    ],
)
def test_a_template_can_not_leave_its_sandbox(goal: str) -> None:
    before = repr(GIVEN)
    with pytest.raises(InputInvalid, match="goal"):
        render(goal, GIVEN)
    assert repr(GIVEN) == before


def doubled(step: str, times: int = 60) -> str:
    """Grow a text step by step, and print nothing before the end."""
    return "{% set a = name %}" + step * times + "{{ a|length }}"


@pytest.mark.parametrize(
    "goal",
    [
        "{{ 'a' * 1000000000 }}",
        "{{ 'a' * 10**9 }}",
        "{{ name * 99999999999 }}",
        "{{ [0] * 1000000000 }}",
        "{{ 10**10**10 }}",
        "{{ 2 ** 3 }}",
        "{{ '%1000000000d' % 1 }}",
        "{{ '%1000000000d'|format(1) }}",
        "{{ '{:1000000000}'.format(1) }}",
        "{{ 'x'|center(1000000000) }}",
        "{{ 'x'|indent(1000000000, true) }}",
        "{{ 'x'|wordwrap(1) }}",
        "{{ 'x'|batch(1000000000, 'x')|list }}",
        "{{ 'x'.ljust(1000000000) }}",
        "{{ 'x'.zfill(1000000000) }}",
        "{{ '\t'.expandtabs(1000000000) }}",
        "{{ items[0].a.to_bytes(1000000000) }}",
        "{{ range(1000000000)|list }}",
        "{{ range(10**9) }}",
        "{{ range(9999)|join('" + "x" * 999 + "') }}",
        "{{ range(9999)|map('center', 1000000)|list }}",
        "{{ items|sum(attribute='who', start=[]) }}",
        doubled("{% set a = a ~ a %}"),
        doubled("{% set a = a + a %}"),
        doubled("{% set a = a|replace('o', a) %}"),
        doubled("{% set a = a|replace('o', 'oooooooooo') %}"),
        doubled("{% set a = a|join(a) %}"),
        doubled("{% set a = [a, a] %}"),
        doubled("{% set a = {'x': a, 'y': a} %}"),
        doubled("{% set a = (a, a) %}"),
        doubled("{% set a = [a|upper, a|lower]|join %}"),
        "{% set n = 3 %}" + "{% set n = n * n %}" * 60 + "{{ n }}",
        "{% set a %}{{ name }}{{ name }}{% endset %}",
        "{% set ns.a = 1 %}",
        "{% macro f() %}{{ f() }}{{ f() }}{% endmacro %}{{ f() }}",
        "{% filter upper %}x{% endfilter %}",
        "{% call f() %}x{% endcall %}",
        "{% for x in items recursive %}{{ loop(items) }}{% endfor %}",
        "{% for a in range(9999) %}{% for b in range(9999) %}" + "x" * 100 + "{% endfor %}{% endfor %}",
    ],
    ids=lambda goal: goal[:40],
)
def test_a_template_can_not_make_much_out_of_little(goal: str) -> None:
    began = time.monotonic()
    with pytest.raises(InputInvalid, match="goal"):
        render(goal, GIVEN)
    assert time.monotonic() - began < 1


@pytest.mark.parametrize("body", ["", "{% if a == b %}{% endif %}", "{% set x = a + b %}"])
def test_a_loop_that_prints_nothing_ends_after_two_seconds(body: str) -> None:
    began = time.monotonic()
    loops = "".join(f"{{% for {name} in range(9999) %}}" for name in "abcd")
    with pytest.raises(InputInvalid, match=r"2\.0 seconds"):
        render(loops + body + "{% endfor %}" * 4, GIVEN)
    assert 1.5 < time.monotonic() - began < 6


def test_a_condition_that_lets_nothing_through_ends_after_two_seconds() -> None:
    began = time.monotonic()
    with pytest.raises(InputInvalid, match=r"2\.0 seconds"):
        render("{% for x in range(9999) if range(9999)|map('string')|join|length == x %}{% endfor %}", GIVEN)
    assert 1.5 < time.monotonic() - began < 6


def test_a_goal_may_be_as_large_as_a_message_and_no_larger() -> None:
    assert len(render("{{ text }}", {"text": "x" * 262_144})) == 262_144
    for text in ("x" * 262_145, "é" * 131_073):
        with pytest.raises(InputInvalid, match="262,144 bytes"):
            render("{{ text }}", {"text": text})


def test_one_render_leaves_nothing_behind_for_the_next() -> None:
    assert render("{% set secret = name %}{{ secret }}", GIVEN) == "Bo"
    with pytest.raises(InputInvalid, match="'secret' is undefined"):
        render("{{ secret }}", {})


def test_an_input_may_not_shadow_what_the_renderer_needs() -> None:
    given = {"range": "r", "environment": "e", "context": "c", "self": "s", "loop": "l"}
    assert render("{{ range }}{{ environment }}{{ context }}{{ loop }}{{ 'a' ~ 'b' }}", given) == "recl" + "ab"
