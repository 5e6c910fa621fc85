import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hwnas.errors import HwnasError, UserInputError
from hwnas.graph import Architecture, Decision, Pick

answers = st.one_of(
    st.text(max_size=5),
    st.integers(-5, 5),
    st.floats(allow_nan=False),
    st.lists(st.integers(0, 9)).map(tuple),
)
kinds = st.sampled_from(["one_of", "integer", "predecessor", "predecessors"])


@given(st.dictionaries(st.text(max_size=8), answers, max_size=8))
def test_an_architecture_survives_json_with_its_order(record):
    architecture = Architecture(record)
    copy = Architecture.from_json(json.loads(json.dumps(architecture.to_json())))
    assert list(copy.items()) == list(architecture.items())
    assert copy.id == architecture.id
    assert hash(copy) == hash(architecture)


@given(kinds, st.integers(1, 6))
def test_encode_and_decode_are_inverse(kind, count):
    decision = Decision("x", kind, tuple(range(count)))
    for index in range(decision.count):
        answer = decision.decode(index)
        decision.check(answer)
        assert decision.encode(answer) == index


def test_picks_are_recorded_in_order():
    pick = Pick(lambda decision: decision.decode(decision.count - 1))
    assert pick.one_of("op", ["a", "b"]) == "b"
    assert pick.integer("width", 8, 32, 8) == 32
    assert pick.predecessor("from", 3) == 2
    assert pick.predecessors("skips", 3) == (0, 1, 2)
    assert list(pick.architecture) == ["op", "width", "from", "skips"]
    assert [d.count for d in pick.decisions] == [2, 4, 3, 8]


@pytest.mark.parametrize("answer", ["c", 1, (0,)])
def test_an_answer_that_was_not_offered_is_refused(answer):
    with pytest.raises(UserInputError, match=r"op: .* is not one of \['a', 'b'\]"):
        Pick(lambda _: answer).one_of("op", ["a", "b"])


@pytest.mark.parametrize("answer", [(1, 0), (0, 0), (3,), 1])
def test_a_subset_must_be_sorted_unique_and_known(answer):
    with pytest.raises(UserInputError, match="sorted subset"):
        Pick(lambda _: answer).predecessors("skips", 3)


def test_true_is_not_one():
    with pytest.raises(UserInputError, match="True is not one of"):
        Pick(lambda _: True).integer("n", 0, 3)


def test_asking_twice_for_one_name_is_a_mistake_of_the_space():
    pick = Pick(lambda d: d.options[0])
    pick.one_of("op", ["a"])
    with pytest.raises(HwnasError, match="'op' twice"):
        pick.one_of("op", ["a"])


@pytest.mark.parametrize("answer", [[[1]], ["a"], None, {}])
def test_json_that_cannot_be_an_answer_is_refused(answer):
    with pytest.raises(UserInputError, match="cannot be an answer"):
        Architecture.from_json({"width": answer})
