use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use proptest::prelude::*;

use super::{KeepBest, KeepRules};
use crate::config::Extreme;
use crate::coordinator::state::StepRecord;
use crate::format::StepKind;
use crate::ids::Step;

fn record(minutes: u64, loss: Option<f64>) -> StepRecord {
    let metrics_json = loss.map_or("{}".to_owned(), |loss| serde_json::json!({ "loss": loss }).to_string());
    StepRecord { committed_unix_ms: minutes * 60_000, metrics_json, ..StepRecord::for_tests() }
}

fn steps(of: &[(u64, u64, Option<f64>)]) -> BTreeMap<Step, StepRecord> {
    of.iter().map(|(step, minutes, loss)| (Step(*step), record(*minutes, *loss))).collect()
}

fn kept(rules: &KeepRules, steps: &BTreeMap<Step, StepRecord>) -> Vec<u64> {
    let surplus: BTreeSet<Step> = rules.surplus(steps).into_iter().collect();
    steps.keys().filter(|step| !surplus.contains(step)).map(|step| step.0).collect()
}

fn hourly(count: u64) -> BTreeMap<Step, StepRecord> {
    (1..=count).map(|number| (Step(number * 100), record(number * 20, None))).collect()
}

#[test]
fn each_rule_keeps_its_own_and_together_they_keep_all_of_that() {
    let steps = hourly(12);
    let last = KeepRules::last(2);
    assert_eq!(kept(&last, &steps), [1100, 1200]);
    let numbers = KeepRules { every_steps: 500, ..last.clone() };
    assert_eq!(kept(&numbers, &steps), [100, 500, 1000, 1100, 1200]);
    let hours = KeepRules { every: Some(Duration::from_secs(3600)), ..last.clone() };
    assert_eq!(kept(&hours, &steps), [100, 400, 700, 1000, 1100, 1200]);
    let both = KeepRules { every_steps: 500, ..hours };
    assert_eq!(kept(&both, &steps), [100, 400, 500, 700, 1000, 1100, 1200]);
    assert_eq!(kept(&KeepRules::default(), &steps).len(), 12, "no rule keeps everything");
}

#[test]
fn the_best_by_a_metric_are_kept_lowest_or_highest_and_of_equal_ones_the_newer() {
    let steps = steps(&[
        (1, 1, Some(3.0)),
        (2, 2, Some(1.0)),
        (3, 3, None),
        (4, 4, Some(1.0)),
        (5, 5, Some(2.0)),
        (6, 6, Some(9.0)),
    ]);
    let best = |count, is| KeepRules {
        best: Some(KeepBest { count, metric: "loss".into(), is }),
        ..KeepRules::last(1)
    };
    assert_eq!(kept(&best(1, Extreme::Min), &steps), [4, 6]);
    assert_eq!(kept(&best(3, Extreme::Min), &steps), [2, 4, 5, 6]);
    assert_eq!(kept(&best(2, Extreme::Max), &steps), [1, 6]);
    let other = KeepBest { count: 1, metric: "accuracy".into(), is: Extreme::Max };
    assert_eq!(kept(&KeepRules { best: Some(other.clone()), ..KeepRules::last(1) }, &steps), [6]);
    assert!(other.missing_in(&steps[&Step(1)]).unwrap().contains("it has loss"));
}

#[test]
fn a_diverged_or_absent_metric_is_never_the_best() {
    let mut steps = steps(&[(1, 1, Some(5.0)), (2, 2, None), (3, 3, None), (4, 4, None)]);
    steps.get_mut(&Step(2)).unwrap().metrics_json = r#"{"loss": null}"#.into();
    steps.get_mut(&Step(3)).unwrap().metrics_json = r#"{"loss": "low"}"#.into();
    let best = KeepBest { count: 2, metric: "loss".into(), is: Extreme::Min };
    assert_eq!(kept(&KeepRules { best: Some(best), ..KeepRules::last(1) }, &steps), [1, 4]);
}

#[test]
fn a_clock_that_was_set_back_keeps_rather_one_step_more() {
    let steps = steps(&[(1, 0, None), (2, 5000, None), (3, 10, None), (4, 20, None), (5, 80, None)]);
    let hours = KeepRules { every: Some(Duration::from_secs(3600)), ..KeepRules::last(1) };
    assert_eq!(kept(&hours, &steps), [1, 2, 3, 5]);
}

#[test]
fn a_step_that_holds_a_part_of_the_state_neither_counts_nor_goes() {
    let mut steps = hourly(4);
    steps.get_mut(&Step(400)).unwrap().kind = StepKind::ModelOnly;
    assert_eq!(kept(&KeepRules::last(1), &steps), [300, 400]);
}

#[test]
fn rules_that_would_do_nothing_are_refused_with_what_to_do() {
    let best = |count, metric: &str| Some(KeepBest { count, metric: metric.into(), is: Extreme::Min });
    let wrong = [
        (KeepRules { every_steps: 10, ..KeepRules::default() }, "keep_every_steps has no effect"),
        (
            KeepRules { every: Some(Duration::from_secs(1)), ..KeepRules::default() },
            "keep_every has no effect",
        ),
        (KeepRules { best: best(1, "loss"), ..KeepRules::default() }, "keep_best has no effect"),
        (KeepRules { every: Some(Duration::ZERO), ..KeepRules::last(1) }, "no time at all"),
        (KeepRules { best: best(1, ""), ..KeepRules::last(1) }, "keep_best needs best_metric"),
        (KeepRules { best: best(0, "loss"), ..KeepRules::last(1) }, "best_metric has no effect"),
    ];
    for (rules, why) in wrong {
        let error = rules.check().unwrap_err();
        assert!(error.message.contains(why) && error.hint.is_some(), "{error}");
    }
    KeepRules { best: best(2, "loss"), every_steps: 10, ..KeepRules::last(3) }.check().unwrap();
}

fn any_steps() -> impl Strategy<Value = BTreeMap<Step, StepRecord>> {
    let one = (1..400u64, 0..3000u64, prop::option::of(-3.0..3.0f64));
    prop::collection::vec(one, 0..40).prop_map(|of| steps(&of))
}

fn any_rules() -> impl Strategy<Value = KeepRules> {
    let best = prop::option::of((1..4u32, any::<bool>()));
    (0..5u32, 0..60u64, prop::option::of(1..500u64), best).prop_map(|(last, every_steps, minutes, best)| {
        KeepRules {
            last,
            every_steps,
            every: minutes.map(|minutes| Duration::from_secs(minutes * 60)),
            best: best.map(|(count, max)| KeepBest {
                count,
                metric: "loss".into(),
                is: if max { Extreme::Max } else { Extreme::Min },
            }),
        }
    })
}

proptest! {
    /// P4: what is given up was wanted by none; asked again, nothing more goes.
    #[test]
    fn what_goes_is_wanted_by_no_rule_and_the_rest_is_left_alone(steps in any_steps(), rules in any_rules()) {
        let surplus = rules.surplus(&steps);
        let newest: Vec<Step> = steps.keys().rev().take(rules.last as usize).copied().collect();
        prop_assert!(newest.iter().all(|step| !surplus.contains(step)));
        prop_assert!(rules.last > 0 || surplus.is_empty());
        for alone in [
            KeepRules { every: None, best: None, ..rules.clone() },
            KeepRules { every_steps: 0, best: None, ..rules.clone() },
            KeepRules { every_steps: 0, every: None, ..rules.clone() },
        ] {
            let wanted = kept(&alone, &steps);
            prop_assert!(surplus.iter().all(|step| !wanted.contains(&step.0)), "{alone:?} wants it");
        }
        let mut left = steps.clone();
        left.retain(|step, _| !surplus.contains(step));
        prop_assert_eq!(rules.surplus(&left), Vec::new());
    }

    /// A step once given up is never missed later: new steps change nothing about which older ones are wanted, but for the
    /// newest and the best.
    #[test]
    fn what_is_kept_at_a_distance_stays_kept_while_steps_come(steps in any_steps(), rules in any_rules()) {
        let spread = KeepRules { best: None, ..rules };
        let mut left: BTreeMap<Step, StepRecord> = BTreeMap::new();
        for (step, record) in &steps {
            left.insert(*step, record.clone());
            for gone in spread.surplus(&left) {
                left.remove(&gone);
            }
        }
        prop_assert_eq!(left.keys().map(|step| step.0).collect::<Vec<_>>(), kept(&spread, &steps));
    }
}
