//! P2, at random: of all that lies in a store any bit, page, object or name may change, and each restore gives exactly
//! what was saved, or an error that says which step is damaged. What no changed byte belongs to stays whole.

mod mutation;
mod saved;

use crate::checkpoint::{Claimant, Takeover};
use crate::error::{Error, Kind};
use crate::format::Owner;
use crate::torture_tests::Campaign;

use self::mutation::Mutation;
use self::saved::{Saved, StepSaved};
use super::fixture::*;

/// What became of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Expected {
    Whole,
    Damaged,
    /// Its COMMIT is not there: it does not exist (P1).
    Absent,
}

#[test]
fn any_change_in_a_store_is_found_before_a_value_reaches_the_caller() {
    let mut campaign = Campaign::new("store-mutations", 200);
    let saved = Saved::new(campaign.seed());
    saved.steps.iter().for_each(|step| is_as(&saved, step, Expected::Whole));
    campaign.play(|campaign, random| {
        let mutation = Mutation::draw(&saved, random);
        println!("{mutation}");
        mutation.apply();
        let found = check_all(&saved, &mutation);
        mutation.undo(&saved);
        campaign.count(mutation.kind());
        campaign.count(mutation.class());
        campaign.count(if found { "found" } else { "of no step's bytes" });
    });
    saved.steps.iter().for_each(|step| is_as(&saved, step, Expected::Whole));
    campaign.held();
}

/// Whether anybody saw it.
fn check_all(saved: &Saved, mutation: &Mutation) -> bool {
    let mut found = owner_is_told(saved, mutation);
    let listed = run(saved.store.steps()).unwrap();
    for step in &saved.steps {
        let expected = mutation.effect_on(step);
        found |= expected != Expected::Whole;
        let listed = listed.iter().find(|listed| listed.step.0 == step.number);
        match (listed.map(|listed| &listed.commit), mutation.content(&step.commit)) {
            (None, Some(None)) => {}
            (Some(Ok(commit)), None) => assert_eq!(commit.record, step.record),
            (Some(Err(error)), Some(Some(_))) => assert_eq!(error.kind, Kind::Corrupt, "{error}"),
            (listed, _) => panic!("step {} is listed as {listed:?}", step.number),
        }
        is_as(saved, step, expected);
    }
    found
}

/// All ranks of a step and its verification end as they should.
fn is_as(saved: &Saved, step: &StepSaved, expected: Expected) {
    let right = |error: &Error| {
        let kind = if expected == Expected::Absent { Kind::NotFound } else { Kind::Corrupt };
        assert_eq!(error.kind, kind, "step {}: {error}", step.number);
        assert!(error.message.contains(&format!("step {}", step.number)), "{error}");
    };
    let mut errors = 0;
    for rank in 0..step.world {
        let restored = open_step(&saved.store, step.number, rank, step.world, "")
            .and_then(|restore| Ok((restore.index().tree.clone(), read(&restore)?)));
        match restored {
            Ok((found, tensors)) => {
                assert!(found == tree(rank, step.number), "step {}: another tree", step.number);
                assert_eq!(tensors.len(), step.specs.len());
                for spec in &step.specs {
                    assert!(tensors[&spec.name] == spec.content(rank), "step {}: wrong bytes", step.number);
                }
            }
            Err(error) => {
                right(&error);
                errors += 1;
            }
        }
    }
    match verify(&saved.store, step.number) {
        Ok(_) => assert_eq!((expected, errors), (Expected::Whole, 0), "step {} verifies", step.number),
        Err(error) => {
            right(&error);
            assert!(errors > 0, "step {}: verified as damaged, and every rank restores it", step.number);
        }
    }
}

/// OWNER is what it was, or damaged, or gone, and never anything else; whether it has changed.
fn owner_is_told(saved: &Saved, mutation: &Mutation) -> bool {
    let found = run(saved.store.owner());
    let confirmed = run(saved.store.confirm(Some(saved.cluster), saved.uuid)).map_err(|error| error.kind);
    let Some(changed) = mutation.content(&saved.owner) else {
        assert_eq!(found.unwrap().unwrap().job_uuid, saved.uuid);
        confirmed.unwrap();
        return false;
    };
    match changed.map(Owner::decode) {
        None => {
            assert_eq!(found.unwrap(), None);
            assert_eq!(confirmed, Err(Kind::Unavailable));
        }
        Some(Ok(other)) => {
            assert_eq!(found.unwrap(), Some(other));
            assert_eq!(confirmed, Err(Kind::Conflict), "another job's OWNER");
        }
        Some(Err(_)) => {
            assert_eq!(found.unwrap_err().kind, Kind::Corrupt);
            assert_eq!(confirmed, Err(Kind::Corrupt));
            let own = Claimant::Own { uid: 1000 };
            let attached = run(saved.store.attach(saved.cluster, Takeover::No, own));
            assert_eq!(attached.unwrap_err().kind, Kind::Corrupt, "a damaged OWNER is not begun anew");
        }
    }
    true
}
