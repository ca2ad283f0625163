"""What a judge makes of a sample: never raw scores for calibrated ones, nor the other way."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from made_blocks import MadeChunk, MadeContig, blocks_of_made
from made_calibrations import a_calibration
from virnucpro.blocks import Scored
from virnucpro.bundle.calibration import Bounds, Origin
from virnucpro.calls import Call, Rule, Status
from virnucpro.classifiers.screen import LOW_COMPLEXITY
from virnucpro.errors import SettingsError
from virnucpro.results.false_discovery import MIXTURE, WORST, Null
from virnucpro.results.hosts import compared
from virnucpro.results.judge import CalibratedJudge, MeanJudge, Question
from virnucpro.results.sample import check, judge_of, summed
from virnucpro.results.worth import THRESHOLDS, Mistakes

RULE, CHUNK_NT = Rule("chunks"), 500


@dataclass
class Blocks:
    """Satisfies FinishedBlocks."""

    blocks: Sequence[Scored]

    def scored(self):
        yield from self.blocks

    def embeddings(self, scored):
        return None


def contig(*p_virus: float, length_nt: int = 500, status: Status = Status.OK) -> MadeContig:
    chunks = [
        MadeChunk(k * length_nt, (k + 1) * length_nt, status, {0: (1 - p, p)})
        for k, p in enumerate(p_virus)
    ]
    return MadeContig(f"c{p_virus}", chunks, length_nt * len(p_virus))


def judged(contigs, calibration=None, cuts=(), negatives=None, threshold=0.8, **question):
    blocks = Blocks(blocks_of_made(contigs, cuts, "chunks"))
    own = None if negatives is None else Blocks(blocks_of_made(negatives, [], "chunks"))
    asked = Question(negatives=own is not None, **question)
    judge = judge_of(blocks, RULE, CHUNK_NT, calibration, asked, threshold, own)
    parts = [judge.contigs(found) for found in summed(blocks, RULE)]
    columns = {
        name: np.concatenate([getattr(part, name) for part in parts]) for name in parts[0].__slots__
    }
    return judge, columns


def logit(p: float) -> float:
    return float(np.log(p / (1 - p)))


def sigmoid(s):
    return 1 / (1 + np.exp(-np.asarray(s)))


def test_without_a_calibration_a_record_has_the_mean_and_nothing_else():
    judge, found = judged([contig(0.9, 0.4), contig(0.2), MadeContig("empty")])
    assert isinstance(judge, MeanJudge)
    assert found["p_virus"] == pytest.approx([0.65, 0.2, np.nan], nan_ok=True)
    assert found["call"].tolist() == [Call.VIRUS, Call.OTHERS, Call.NONE]
    for name in ("log_odds", "probability", "q_value"):
        assert np.isnan(found[name]).all()
    assert Mistakes(judge).worth() is None


def test_with_one_a_record_has_the_log_odds_of_the_rule_and_never_the_mean():
    calibration = a_calibration(a=-1.0, b=0.5, power=0.5)
    judge, found = judged([contig(0.9, 0.6), contig(0.9), MadeContig("empty")], calibration)
    assert isinstance(judge, CalibratedJudge)
    both = -1.0 + 0.5 * (logit(0.9) + logit(0.6)) / np.sqrt(2)
    expected = [both, -1.0 + 0.5 * logit(0.9), np.nan]
    assert found["log_odds"] == pytest.approx(expected, nan_ok=True)
    assert found["p_virus"] == pytest.approx(sigmoid(expected), nan_ok=True)
    prior = np.log(0.05 / 0.95)
    assert found["probability"] == pytest.approx(sigmoid(np.add(expected, prior)), nan_ok=True)
    assert found["call"].tolist() == [Call.OTHERS, Call.OTHERS, Call.NONE]
    # A chunk keeps the score of the network, and its cut.
    block = blocks_of_made([contig(0.9)], [], "chunks")[0]
    assert judge.rule.chunks(block.scores).tolist() == [Call.VIRUS]


def test_neighbours_that_say_the_same_count_less_than_independent_chunks():
    many = contig(*[0.7] * 9)
    (_, alone), (_, mean) = (judged([many], a_calibration(power=p)) for p in (0.0, 1.0))
    assert alone["log_odds"][0] == pytest.approx(9 * logit(0.7))
    assert mean["log_odds"][0] == pytest.approx(logit(0.7))


@st.composite
def samples(draw):
    scores = st.floats(0.01, 0.99)
    contigs = draw(st.lists(st.lists(scores, min_size=1, max_size=5), min_size=1, max_size=7))
    return [contig(*found) for found in contigs]


@given(samples(), st.lists(st.integers(0, 20)), st.sampled_from([None, 0.2, "auto"]))
def test_verdicts_do_not_depend_on_where_blocks_are_cut(contigs, cuts, prior):
    negatives = {"bacteria": [[-3.0, 0.0], [-2.0, 0.0, 1.0], [-1.0]], "human": [[2.0], [3.0]]}
    calibration = a_calibration(negatives)
    _, whole = judged(contigs, calibration, prior=prior, fdr=0.4)
    _, pieces = judged(contigs, calibration, cuts, prior=prior, fdr=0.4)
    for name, column in whole.items():
        assert column.tobytes() == pieces[name].tobytes(), name


def bacteria(n: int, seed: int = 0):
    rng = np.random.default_rng(seed)
    return {"bacteria": [[], rng.normal(-2, 1, n).tolist()], "human": [[], [9.0] * (n // 2)]}


def test_a_rate_of_false_discoveries_calls_by_q():
    rng = np.random.default_rng(1)
    others = [contig(float(sigmoid(s))) for s in rng.normal(-2, 1, 80)]
    viral = [contig(0.99) for _ in range(20)]
    calibration = a_calibration(bacteria(999))
    judge, found = judged(others + viral, calibration, fdr=0.1, host="bacteria")
    called = found["call"] == Call.VIRUS
    assert called[80:].all()
    assert called[:80].sum() <= 4
    assert (called == (found["q_value"] <= 0.1)).all()
    mistakes = Mistakes(judge)
    for block in summed(Blocks(blocks_of_made(others + viral, [], "chunks")), RULE):
        mistakes.add(judge.contigs(block))
    worth = mistakes.worth()
    assert (worth.called, worth.refusal) == (called.sum(), "")
    assert "at most" in worth.sentence
    assert "null: bacteria" in worth.sentence


def test_records_beyond_few_negatives_are_said_not_to_be_called():
    """Ninety records of one chunk that 999 negatives tell, three of many that 20 cannot."""
    contigs = [contig(0.999)] * 20 + [contig(0.1)] * 70 + [contig(*[0.9999] * 40)] * 3
    negatives = [contig(0.2)] * 999 + [contig(*[0.2] * 40)] * 20
    judge, found = judged(contigs, a_calibration(bacteria(999)), negatives=negatives, fdr=0.02)
    assert (found["call"] == Call.VIRUS).sum() == 20
    assert judge.discovery.beyond == 3
    mistakes = Mistakes(judge)
    for block in summed(Blocks(blocks_of_made(contigs, [], "chunks")), RULE):
        mistakes.add(judge.contigs(block))
    worth = mistakes.worth()
    assert worth.as_dict()["beyond"] == 3
    assert worth.sentence.endswith(
        "; 3 more records of a score above all negatives of the same length are not called, since "
        "these are too few for that rate: call by --threshold"
    )
    usual, _ = judged(contigs, a_calibration(bacteria(999)))
    assert usual.discovery.beyond == 0
    # Without negatives of their length they are above none.
    none, _ = judged(contigs, a_calibration(bacteria(999)), negatives=negatives[:999], fdr=0.02)
    assert none.discovery.beyond == 0


def test_a_handful_of_calls_says_nothing_of_the_share():
    plain = a_calibration()
    bounds = Bounds(
        score=np.array([np.inf] * plain.bins),
        share=np.array([0.08] * plain.bins),
        length_bin=np.arange(plain.bins, dtype=np.uint8),
        group=np.full(plain.bins, len(plain.negatives.names), np.uint8),
    )
    for called, told in ((1, False), (2, False), (40, True)):
        contigs = [contig(0.999)] * called
        judge, _ = judged(contigs, replace(plain, bounds=bounds))
        mistakes = Mistakes(judge)
        for block in summed(Blocks(blocks_of_made(contigs, [], "chunks")), RULE):
            mistakes.add(judge.contigs(block))
        assert mistakes.worth().more_virus == told


def test_records_of_lengths_that_a_calibration_was_not_fitted_on_are_counted():
    sample = [contig(0.9), contig(*[0.9] * 3), contig(*[0.9] * 3)]
    one_length = a_calibration({"bacteria": [[-4.0], [-4.0]]})
    assert judged(sample, one_length)[0].extrapolated.startswith(
        "2 of 3 records have lengths that the calibration was not fitted on (550 to 2,050 nt), so"
    )
    assert judged(sample[:1], one_length)[0].extrapolated == ""
    all_lengths = a_calibration({"bacteria": [[-4.0]] * 5})
    assert judged(sample, all_lengths)[0].extrapolated == ""
    viral_only_short = Bounds(
        score=np.full(7, np.inf),
        share=np.full(7, 0.5),
        length_bin=np.array([0, 1, 2, 3, 4, 0, 1], np.uint8),
        group=np.array([1] * 5 + [2] * 2, np.uint8),
    )
    calibration = replace(all_lengths, bounds=viral_only_short)
    assert judged(sample, calibration)[0].extrapolated.startswith("2 of 3 records")


def test_what_a_null_cannot_tell_is_refused_with_the_number_that_it_can():
    contigs = [contig(0.999)] + [contig(0.1)] * 99
    judge, found = judged(contigs, a_calibration(bacteria(199)), fdr=0.05, host="bacteria")
    assert not (found["call"] == Call.VIRUS).any()
    assert found["q_value"][0] == pytest.approx(0.5)
    said = judge.discovery.refusal
    assert (
        "the negatives of the length of the best records (null: bacteria) are too few, or of too "
        "few units: of 100 records, 1 has the smallest q, 0.5, and a q of 0.05 takes 1,999 "
        "negatives of this length, of as many units, or more; give more --negatives" in said
    )


def test_negatives_that_score_as_high_as_the_best_are_the_reason_of_a_refusal():
    contigs = [contig(0.5)] * 10 + [contig(0.1)] * 90
    judge, _ = judged(contigs, a_calibration(bacteria(999)), fdr=0.05, host="bacteria")
    said = judge.discovery.refusal
    assert said.startswith(
        "nothing is called at --fdr 0.05: of 999 negatives (null: bacteria) too many score as high"
    )
    assert "--negatives" not in said


def test_a_rate_of_next_to_nothing_calls_nothing():
    judge, found = judged([contig(0.999)] * 50, a_calibration(bacteria(999)), fdr=1e-9)
    assert (found["call"] == Call.OTHERS).all()
    assert judge.discovery.refusal


def test_the_users_own_negatives_are_the_null():
    own = [contig(p) for p in np.linspace(0.01, 0.6, 99)]
    sample = [contig(0.9)] * 5 + [contig(0.3)] * 5
    for calibration in (None, a_calibration()):
        judge, found = judged(sample, calibration, negatives=own, fdr=0.1)
        assert judge.discovery.negatives == 99
        assert (found["call"] == Call.VIRUS).tolist() == [True] * 5 + [False] * 5
        assert found["q_value"][:5] == pytest.approx([0.02] * 5)
        assert found["q_value"][0] < found["q_value"][5]


def five_percent_of_hosts_are_called():
    return a_calibration({"bacteria": [[], [-3.0] * 190 + [3.0] * 9]})


def own_negatives(called: int, number: int):
    return [contig(0.97)] * called + [contig(0.05)] * (number - called)


@pytest.mark.parametrize(
    ("called", "number", "told"),
    # Of hosts that are not in the calibration, 7.5 % may be called, and by chance some more.
    [(10, 200, False), (26, 200, False), (27, 200, True), (186, 2000, False), (187, 2000, True)],
)
def test_negatives_of_which_hosts_do_not_explain_the_calls_seem_to_hold_viruses(
    called, number, told
):
    own = own_negatives(called, number)
    judge, _ = judged([contig(0.9)], five_percent_of_hosts_are_called(), negatives=own)
    said = f"{called:,} of {number:,} negatives have p_virus >= 0.8, of which hosts explain "
    assert judge.discovery.viral.startswith(f"{said}{number * 3 // 40} at most") == told
    assert bool(judge.discovery.viral) == told


def test_bounds_of_few_units_explain_calls_of_negatives():
    plain, own_group, all_groups = five_percent_of_hosts_are_called(), 0, 1
    for group, explained, most in ((all_groups, 60, 83), (own_group, 40, 58)):
        bounds = Bounds(
            score=np.array([logit(0.9), np.inf]),
            share=np.array([0.2, 0.01]),
            length_bin=np.ones(2, np.uint8),
            group=np.full(2, group, np.uint8),
        )
        for called, told in ((most, False), (most + 1, True)):
            own = own_negatives(called, 200)
            judge, _ = judged([contig(0.9)], replace(plain, bounds=bounds), negatives=own)
            assert (f"hosts explain {explained} at most" in judge.discovery.viral) == told


def test_negatives_of_which_nobody_can_tell_whether_they_hold_viruses_are_told_of():
    few = a_calibration({"bacteria": [[], [-3.0] * 199, [-3.0] * 99]})
    own = [*own_negatives(9, 60), *[contig(*[0.3] * 4)] * 40]
    sample = [contig(0.9), contig(*[0.3] * 4)]
    lengths = "(550 to 2,050 nt); cut them to the lengths of the records, or classify the file"
    for calibration, said in (
        (few, f"few hosts of their length {lengths}"),
        (None, "this bundle has no calibration to tell by whether the negatives hold viruses"),
    ):
        untold = judged(sample, calibration, negatives=own)[0].discovery.untold
        assert said in untold
        assert "take out those that a search of known viruses confirms" in untold
    untold = judged(sample, few, negatives=own)[0].discovery.untold
    assert untold.startswith("whether 40 of 100 negatives hold viruses cannot be told")
    assert judged(sample, few, negatives=own[:60])[0].discovery.untold == ""


@pytest.mark.parametrize("calibration", [None, a_calibration()])
def test_negatives_and_records_that_are_compared_with_nothing_are_told_of(calibration):
    def useless(sample, own, **question):
        return judged(sample, calibration, negatives=own, **question)[0].discovery.useless

    own = [contig(0.1)] * 7
    sample = [contig(0.9), contig(*[0.9] * 3), contig(*[0.9] * 3), MadeContig("empty")]
    assert useless(sample[:1], own) == ()
    lacking = (
        "no negative has the length of 2 of 3 records (550 to 2,050 nt), so the q_value of these "
        "is 1; cut longer negatives to the lengths of the records, or give some of these lengths"
    )
    assert useless(sample, own) == (lacking,)
    assert useless(sample, own, fdr=0.5) == (lacking,)
    assert useless(sample[1:], own, fdr=0.5) == ()  # it calls nothing, and the refusal says why
    short = MadeContig("short", [MadeChunk(0, 9, Status.TOO_SHORT)], 9)
    faulty = MadeContig("protein", fault="letter 'L'")
    lines = useless(sample[:1], [*own, short, short, MadeContig("empty"), faulty])
    assert lines == (
        "4 of 11 negatives have no score and are left out of the comparison (1 empty, 1 failed, 2 "
        "too short); `virnucpro validate` names the failed ones",
    )


def test_lengths_of_which_the_calibration_has_few_negatives_tell_nothing():
    few = a_calibration({"bacteria": [[], [-3.0] * 99]})
    judge, _ = judged([contig(0.9)], few, negatives=own_negatives(200, 200))
    assert judge.discovery.viral == ""


def test_a_rate_that_viruses_among_the_negatives_forbid_says_so():
    too_many = "of 200 negatives (null: your own) too many score as high as the best"
    too_few = (
        "the negatives of the length of the best records (null: your own) are too few: of 91 "
        "records, 1 has the smallest q, "
    )
    for calibration, called, best, why, told in (
        (five_percent_of_hosts_are_called(), 60, [0.95] * 10, too_many, True),
        (five_percent_of_hosts_are_called(), 60, [0.99], too_few, True),
        (five_percent_of_hosts_are_called(), 15, [0.95] * 10, too_many, False),
        (None, 60, [0.95] * 10, too_many, False),
    ):
        sample = [contig(p) for p in [*best, *[0.03] * 90]]
        own = own_negatives(called, 200)
        judge, _ = judged(sample, calibration, negatives=own, fdr=0.1)
        refusal = judge.discovery.refusal
        assert refusal.startswith(f"nothing is called at --fdr 0.1: {why}")
        assert ("so these negatives seem to hold viruses" in refusal) == told
        assert refusal.endswith("use --host instead" if told else "or call by --threshold")
        assert ("; check that these negatives hold no viruses, ask for" in refusal) != told


@pytest.mark.parametrize(("called", "reached"), [(0, False), (1, True)])
def test_own_negatives_that_reach_the_best_records_are_to_be_checked(called, reached):
    """There are too few to call two records of thirty, whether or not they hold a virus."""
    sample = [contig(0.95)] * 2 + [contig(0.03)] * 28
    judge, _ = judged(sample, negatives=own_negatives(called, 99), fdr=0.1)
    refusal = judge.discovery.refusal
    assert "; give more --negatives of your own (without viruses), " in refusal
    assert ("check that these negatives hold no viruses" in refusal) == reached


def test_low_complexity_is_never_called_and_speaks_for_no_virus():
    blocks = blocks_of_made([contig(0.99, 0.99), contig(0.99)], [], "chunks")
    noted = replace(
        blocks[0],
        scores=replace(
            blocks[0].scores, notes=np.array([LOW_COMPLEXITY, 0, LOW_COMPLEXITY], np.uint8)
        ),
    )
    finished = Blocks([noted])
    judge = judge_of(finished, RULE, CHUNK_NT, a_calibration(a=5.0), Question(), 0.5)
    (contigs,) = summed(finished, RULE)
    found = judge.contigs(contigs)
    assert contigs.evidence == pytest.approx([500 * logit(0.99), 0.0])
    assert found.call.tolist() == [Call.OTHERS, Call.OTHERS]
    assert found.notes.tolist() == [LOW_COMPLEXITY] * 2


ORIGIN = Origin(
    ("phage", "bacteria", "human"), ("phage", "bacteria", "human"), np.zeros(3), 1.0, 0.7
)


def with_groups(contigs, groups) -> Blocks:
    (block,) = blocks_of_made(contigs, [], "chunks")
    log_p = np.log(np.array(groups)).astype(np.float16)
    return Blocks([replace(block, scores=replace(block.scores, groups=log_p))])


def test_origins_choose_the_hosts_of_the_worst_null():
    negatives = {"bacteria": [[], [-2.0] * 200], "human": [[], [9.0] * 200]}
    calibration = a_calibration(negatives, origin=ORIGIN)
    sure, unsure = (0.05, 0.9, 0.05), (0.3, 0.4, 0.3)
    contigs = [contig(0.9), contig(0.4), contig(0.4)]
    finished = with_groups(contigs, [sure, sure, unsure])
    judge = judge_of(finished, RULE, CHUNK_NT, calibration, Question(), 0.8)
    found = judge.contigs(next(summed(finished, RULE)))
    assert [judge.origins[i] for i in found.origin] == ["bacteria", "bacteria", "unclear"]
    assert judge.discovery.null == "null: the worst of bacteria"
    human = (0.05, 0.05, 0.9)
    both = with_groups(contigs, [sure, sure, human])
    worse = judge_of(both, RULE, CHUNK_NT, calibration, Question(), 0.8)
    assert worse.discovery.null == "null: the worst of bacteria, human"
    mixed = judge_of(both, RULE, CHUNK_NT, calibration, Question(host="mixture"), 0.8)
    q = [j.contigs(next(summed(both, RULE))).q_value[0] for j in (judge, mixed, worse)]
    assert q[0] < q[1] < q[2]


def test_records_that_ended_before_the_network_may_be_of_any_host():
    """Their groups are zeros: logarithms of 1, which speak for none."""
    negatives = {"bacteria": [[], [-2.0] * 200], "human": [[], [9.0] * 200]}
    calibration = a_calibration(negatives, origin=ORIGIN)
    finished = with_groups([contig(0.9), contig(0.1)], [(0.05, 0.9, 0.05), (1.0, 1.0, 1.0)])
    judge = judge_of(finished, RULE, CHUNK_NT, calibration, Question(), 0.8)
    found = judge.contigs(next(summed(finished, RULE)))
    assert [judge.origins[i] for i in found.origin] == ["bacteria", ""]
    assert judge.discovery.null == "null: the worst of bacteria, human"


@pytest.mark.parametrize(
    ("calibration", "question", "message"),
    [
        (None, Question(prior=0.1), "--prior needs a bundle with a calibration"),
        (None, Question(fdr=0.1), "--fdr needs negatives"),
        (None, Question(host="human"), "--host needs a bundle with a calibration"),
        (a_calibration(), Question(host="plant"), "choose --host from worst, mixture, bacteria"),
        (a_calibration(), Question(host="bactria"), r"bactria \(did you mean bacteria\?\); choose"),
        (a_calibration(), Question(host="bacteria", negatives=True), "both name the null"),
    ],
)
def test_what_a_bundle_cannot_answer_is_refused(calibration, question, message):
    with pytest.raises(SettingsError, match=message):
        check(calibration, question)


@pytest.mark.parametrize(
    ("question", "bound"),
    [({}, 38.0), ({"prior": 0.5}, 20.0), ({"threshold": 0.995}, 7.6), ({"fdr": 0.5}, None)],
)
def test_how_many_calls_hosts_of_another_kind_may_cost(question, bound):
    """Of others, 40 in 100 reach 0.8, and 8 in 100 reach 0.995, of a few units."""
    plain = a_calibration()
    names, bins = len(plain.negatives.names), plain.bins
    bounds = Bounds(
        score=np.tile([logit(0.99), np.inf], bins),
        share=np.tile([0.4, 0.08], bins),
        length_bin=np.repeat(np.arange(bins, dtype=np.uint8), 2),
        group=np.full(2 * bins, names, np.uint8),
    )
    contigs = [contig(0.999)] * 50 + [contig(0.1)] * 50
    judge, _ = judged(contigs, replace(plain, bounds=bounds), **question)
    assert judge.wrong_bound == (None if bound is None else pytest.approx(bound))
    mistakes = Mistakes(judge)
    for block in summed(Blocks(blocks_of_made(contigs, [], "chunks")), RULE):
        mistakes.add(judge.contigs(block))
    worth = mistakes.worth()
    assert worth.wrong_bound == (None if bound is None else pytest.approx(min(bound, worth.called)))
    assert ("look more viral than most" in worth.sentence) == (bound is not None)
    # With chance, 5 viral records of 100 and 38 others may be 57 calls, with 7.6 others 21.
    assert worth.more_virus == (question == {"threshold": 0.995})


@pytest.mark.parametrize(("prior", "wrong"), [(0.0, 3), (1.0, 0)])
def test_where_nothing_or_all_is_viral_all_calls_or_none_are_wrong(prior, wrong):
    contigs = [contig(p) for p in (0.91, 0.96, 0.995, 0.2)]
    judge, _ = judged(contigs, a_calibration(), prior=prior)
    mistakes = Mistakes(judge)
    for block in summed(Blocks(blocks_of_made(contigs, [], "chunks")), RULE):
        mistakes.add(judge.contigs(block))
    worth = mistakes.worth()
    assert (worth.called, worth.wrong) == (3, wrong)


def test_expected_mistakes_add_up():
    contigs = [contig(p) for p in (0.91, 0.96, 0.995, 0.2)]
    judge, _ = judged(contigs, a_calibration(), prior=0.5)
    mistakes = Mistakes(judge)
    for block in summed(Blocks(blocks_of_made(contigs, [2], "chunks")), RULE):
        mistakes.add(judge.contigs(block))
    worth = mistakes.worth()
    assert (worth.called, worth.scored) == (3, 4)
    assert worth.wrong == pytest.approx(0.09 + 0.04 + 0.005)
    assert worth.fewest_wrong == worth.most_wrong == worth.wrong
    assert [at.called for at in worth.by_threshold] == [3, 3, 3, 3, 2, 1]
    assert [at.threshold for at in worth.by_threshold] == list(THRESHOLDS)  # 0.8, once
    assert worth.by_threshold[0].wrong == pytest.approx(0.135)
    assert sum(worth.scores) == 4
    assert worth.sentence == (
        "3 records called virus; of these about 0.1 are expected to be wrong (prior 50 %, as given)"
    )
    assert worth.wrong_bound is None  # this calibration has no bounds
    unlike = replace(worth, wrong_bound=2.4).sentence
    assert unlike.endswith("as given); up to 2 if its hosts look more viral than most")
    assert "50 % are viral: give the share with --prior" in replace(worth, more_virus=True).sentence
    several = replace(worth, fewest_wrong=0.04, most_wrong=2.6)
    assert replace(several, wrong_bound=2.7).sentence == several.sentence
    assert "of these up to 3 are expected to be wrong (prior" in several.sentence
    of_rate = replace(worth, fdr=0.2, most_wrong=0.6)
    assert "of these at most 0.6 (20 %) are expected to be wrong" in of_rate.sentence
    assert "of these fewer than 0.1 (20 %) are" in replace(of_rate, most_wrong=0.04).sentence
    assert "of these at most 2 (50 %) are" in replace(of_rate, fdr=0.5, most_wrong=1.5).sentence


def test_the_threshold_of_the_run_is_among_those_that_mistakes_are_told_of():
    contigs = [contig(p) for p in (0.91, 0.96, 0.995, 0.2)]
    for question, threshold, more in (({}, 0.93, [0.93]), ({"fdr": 0.5}, 0.93, [])):
        judge, _ = judged(contigs, a_calibration(), threshold=threshold, **question)
        mistakes, low = Mistakes(judge), Mistakes(judge)
        for block in summed(Blocks(blocks_of_made(contigs, [2], "chunks")), RULE):
            found = judge.contigs(block)
            mistakes.add(found)
            notes = np.full_like(found.notes, LOW_COMPLEXITY)
            low.add(replace(found, notes=notes))
        worth = mistakes.worth()
        assert [at.threshold for at in worth.by_threshold] == sorted([*THRESHOLDS, *more])
        assert {at.called for at in low.worth().by_threshold} == {0}  # never virus
        for at in worth.by_threshold:
            if at.threshold == threshold:
                assert (at.called, at.wrong) == (worth.called, pytest.approx(worth.wrong))
                assert at.called == 2


def test_the_null_names_all_groups_where_a_host_has_few_negatives():
    few, many = (Null.of(np.zeros(n), np.zeros(n, np.uint8), 2) for n in (3, 150))
    everything = Null.of(np.zeros(400), np.zeros(400, np.uint8), 2)
    here = np.array([5, 0])
    told = "null: all groups, as human has few negatives of this length"
    assert compared("human", {"human": few}, everything, here) == (told, 400)
    assert compared("bacteria", {"bacteria": many}, everything, here) == ("null: bacteria", 150)
    both = {"bacteria": many, "human": few}
    words, number = compared(WORST, both, everything, here)
    assert words.startswith("null: the worst of bacteria, human, all groups where")
    assert number == 150
    assert compared(MIXTURE, both, everything, here) == ("null: a mixture of bacteria, human", 153)


def test_negatives_of_other_lengths_than_the_records_are_said_to_be():
    judge, _ = judged([contig(0.95)], negatives=[contig(*[0.1] * 40)] * 30, fdr=0.1)
    assert judge.discovery.refusal.startswith(
        "nothing is called at --fdr 0.1: none of these negatives has the length of a record; cut"
    )


def test_a_handful_of_negatives_gives_no_hint():
    judge, _ = judged(
        [contig(0.9)], five_percent_of_hosts_are_called(), negatives=own_negatives(9, 9)
    )
    assert judge.discovery.viral == ""
