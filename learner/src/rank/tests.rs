use std::time::Duration;

use podium_model::LoadOptions;

use super::*;
use crate::collective::Alone;
use crate::collective::tcp::Tcp;
use crate::testing::{config, run_file, stars, step, timeless};

/// A folder with a policy that has random weights, and another file beside them.
fn start() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    Policy::random(&config(), 5, LoadOptions::default()).unwrap().save(folder.path()).unwrap();
    fs::write(folder.path().join("tokenizer.json"), "{}").unwrap();
    fs::create_dir(folder.path().join("additional_chat_templates")).unwrap();
    fs::write(folder.path().join("additional_chat_templates/default.jinja"), "{{ messages }}").unwrap();
    let config = fs::read_to_string(folder.path().join("config.json")).unwrap();
    fs::write(folder.path().join("config.json"), format!("{config}\n")).unwrap();
    folder
}

/// Rank 0 with its state in a folder, or another rank.
fn rank(start: &Path, state: Option<&Path>) -> Rank {
    let rank = u32::from(state.is_none());
    Rank::build(&run_file(&[]), start, state.unwrap_or(start), rank, "cpu", None).unwrap()
}

#[test]
fn a_version_differs_from_the_start_in_weights_alone() {
    let (start, target) = (start(), tempfile::tempdir().unwrap());
    let mut rank = rank(start.path(), None);
    rank.save_policy(target.path()).unwrap();
    let bytes = |folder: &Path, name: &str| fs::read(folder.join(name)).unwrap();
    let template = "additional_chat_templates/default.jinja";
    for name in ["config.json", "tokenizer.json", template, "model.safetensors"] {
        assert!(bytes(start.path(), name) == bytes(target.path(), name), "{name}");
    }
    rank.step(&step(0)).unwrap();
    rank.save_policy(target.path()).unwrap();
    assert!(bytes(start.path(), "model.safetensors") != bytes(target.path(), "model.safetensors"));
}

#[test]
fn a_new_rendezvous_starts_from_the_newest_checkpoint() {
    let (start, folder) = (start(), tempfile::tempdir().unwrap());
    let mut rank = rank(start.path(), Some(folder.path()));
    let start_over = Position { next_step: Step(0), metrics: None };
    assert_eq!(rank.shut_down().unwrap(), Step(0), "no step was applied that a checkpoint could store");
    assert_eq!(rank.enter(Box::new(Alone)).unwrap(), start_over);
    let first = rank.step(&step(0)).unwrap();
    assert_eq!(rank.enter(Box::new(Alone)).unwrap(), start_over, "there is no checkpoint yet");
    let again = rank.step(&step(0)).unwrap();
    assert_eq!(timeless(std::slice::from_ref(&again)), timeless(&[first]));
    rank.write_checkpoint().unwrap();
    let second = rank.step(&step(1)).unwrap();
    let position = rank.enter(Box::new(Alone)).unwrap();
    assert_eq!(position, Position { next_step: Step(1), metrics: Some(again) });
    assert_eq!(timeless(&[rank.step(&step(1)).unwrap()]), timeless(&[second]));
}

#[test]
fn a_rank_that_shuts_down_repeats_no_step() {
    let (start, folder) = (start(), tempfile::tempdir().unwrap());
    let mut stopping = rank(start.path(), Some(folder.path()));
    stopping.step(&step(0)).unwrap();
    let second = stopping.step(&step(1)).unwrap();
    assert_eq!(stopping.shut_down().unwrap(), Step(2));
    drop(stopping);
    let mut again = rank(start.path(), Some(folder.path()));
    let position = again.enter(Box::new(Alone)).unwrap();
    assert_eq!(position, Position { next_step: Step(2), metrics: Some(second) });
    // A step that failed before it began changes nothing.
    again.step(&step(7)).unwrap_err();
    assert_eq!(again.shut_down().unwrap(), Step(2));
}

#[test]
fn all_ranks_get_the_state_of_rank_0() {
    let (start, folder) = (start(), tempfile::tempdir().unwrap());
    let mut leader = rank(start.path(), Some(folder.path()));
    leader.step(&step(0)).unwrap();
    leader.write_checkpoint().unwrap();
    leader.save_policy(&folder.path().join("leader")).unwrap();
    drop(leader);

    stars(2, Duration::from_secs(30), |star| {
        let collective = Tcp::new(star);
        let leads = collective.rank() == 0;
        let mut rank = rank(start.path(), leads.then(|| folder.path()));
        let position = rank.enter(Box::new(collective)).unwrap();
        assert_eq!((position.next_step, position.metrics.is_some()), (Step(1), leads));
        if !leads {
            rank.save_policy(&folder.path().join("other")).unwrap();
        }
    });
    let weights = |name: &str| fs::read(folder.path().join(name).join("model.safetensors")).unwrap();
    assert!(weights("leader") == weights("other"));
}

#[test]
fn an_earlier_version_is_saved_without_side_effects_or_its_steps_are_repeated() {
    let (start, folder) = (start(), tempfile::tempdir().unwrap());
    let bytes = |name: &str| fs::read(folder.path().join(name).join("model.safetensors")).unwrap();
    let mut rank = rank(start.path(), Some(&folder.path().join("checkpoints")));
    for number in 0..4 {
        rank.step(&step(number)).unwrap();
        rank.save_policy(&folder.path().join(format!("{}", number + 1))).unwrap();
        if number < 2 {
            rank.write_checkpoint().unwrap();
        }
    }
    let again = folder.path().join("again");
    let save = |rank: &mut Rank, version, first| {
        rank.save_version(PolicyVersion(version), Step(first), &again).unwrap()
    };
    assert_eq!(save(&mut rank, 4, 2), Remade::Saved);
    assert!(bytes("again") == bytes("4"));
    // Checkpoints continue with steps 1 and 2.
    assert_eq!(save(&mut rank, 3, 3), Remade::Impossible, "the groups of step 2 are gone");
    assert_eq!(save(&mut rank, 3, 2), Remade::AfterSteps);
    assert_eq!(save(&mut rank, 1, 2), Remade::Saved);
    assert!(bytes("again") == bytes("1"));
    rank.save_policy(&again).unwrap();
    assert!(bytes("again") == bytes("4"), "the present state is restored");
    let fifth = rank.step(&step(4)).unwrap();

    assert_eq!(rank.roll_back().unwrap(), Step(2), "the newest checkpoint");
    rank.enter(Box::new(Alone)).unwrap();
    let repeated: Vec<_> = (2..5).map(|number| rank.step(&step(number)).unwrap()).collect();
    assert_eq!(timeless(&repeated[2..]), timeless(&[fifth]));
}
