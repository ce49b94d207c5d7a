"""What a comparison comes to: the frontier, what is advised, and the words."""

from actors.comparing import verdict


def fusion(accuracy, calls=1.0, p=None, far=0.5):
    found = {"accuracy": accuracy, "calls": calls, "n": 3000, "elsewhere": {"books": {"accuracy": far}}}
    found["ci95"] = [accuracy - 0.01, accuracy + 0.01]
    if p is not None:
        found["against_winner"] = {"difference": 0.9 - accuracy, "p_value": p}
    return found


def test_the_frontier_is_what_wins_at_some_price():
    fusions = {
        "fusegen": fusion(0.84),
        "pooled": fusion(0.83),
        "frugal": fusion(0.87, 2.5),
        "ensemble": fusion(0.86, 6),
        "foe": fusion(0.9, 6),
    }
    assert [one["fusion"] for one in verdict.frontier(fusions)] == ["fusegen", "frugal", "foe"]


def test_a_dear_winner_that_leads_clearly_is_taken_and_cheaper_ones_are_named():
    fusions = {"fusegen": fusion(0.84, p=1e-9), "frugal": fusion(0.87, 2.5, p=0.004), "foe": fusion(0.9, 6)}
    assert verdict.advised(fusions, "foe") == "foe"
    assert verdict.recommendation(fusions, "foe", []) == (
        "Fusion of Experts is right most often: on .900 of 3,000 real texts (95 % interval .890 to .910), "
        "asking 6 models per request. Take it. Where a request may ask no more than 2.5 models, "
        "take the frugal router, .870 (.030 behind, p = .004). Where a request may ask no more than one "
        "model, take FuseGen's single model, .840 (.060 behind, p < .001)."
    )


def test_the_cheapest_that_cannot_be_told_from_the_winner_is_advised():
    fusions = {
        "fusegen": fusion(0.895, p=0.4, far=0.8),
        "regmean": fusion(0.893, p=0.2),
        "simple": fusion(0.8, p=1e-9),
        "foe": fusion(0.9, 6, far=0.7),
    }
    assert verdict.tied(fusions, "foe") == ["fusegen", "regmean"]
    assert verdict.advised(fusions, "foe") == "fusegen"
    words = verdict.recommendation(fusions, "foe", ["books"])
    assert "FuseGen's single model asks one model per request and cannot be told from it on" in words
    assert "(.005 behind, p = .400): take that. Nor can RegMean's merged model be told from it." in words
    assert words.endswith("On books, FuseGen's single model leads (.800).")


def test_a_winner_that_is_one_model_is_taken():
    words = verdict.recommendation({"pooled": fusion(0.9), "foe": fusion(0.88, 6, p=0.3)}, "pooled", [])
    assert words.endswith("Take it. On these texts it cannot be told from Fusion of Experts.")
