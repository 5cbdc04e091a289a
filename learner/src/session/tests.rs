use podium_grpo::Options;

use super::*;
use crate::testing;

fn parts() -> (v1::BatchHeader, Vec<v1::BatchPart>) {
    let groups = [0, 1].map(|index| testing::group(3, index, &[2, 1], &[1.0, 0.0]));
    let header = v1::BatchHeader {
        step: 3,
        groups: 2,
        groups_in_step: 2,
        tokens_in_step: 6,
        step_rewards: groups.iter().map(v1::GroupRewards::from).collect(),
    };
    let part = |group: Group| v1::BatchPart { part: Some(Part::Group(group.into())) };
    (header, groups.into_iter().map(part).collect())
}

#[test]
fn a_share_is_assembled() {
    let (header, parts) = parts();
    let (share, unusable) = share(Step(3), &header, parts.into_iter(), vec![]).unwrap();
    assert_eq!(unusable, []);
    share.check(&Options::default()).unwrap();
    assert_eq!((share.groups.len(), share.step_rewards[1].totals.clone()), (2, vec![Some(1.0), Some(0.0)]));
}

#[test]
fn an_inconsistent_answer_is_refused() {
    let refused = |change: fn(&mut v1::BatchHeader, &mut Vec<v1::BatchPart>)| {
        let (mut header, mut parts) = parts();
        change(&mut header, &mut parts);
        share(Step(3), &header, parts.into_iter(), vec![]).unwrap_err().to_string()
    };
    assert!(refused(|header, _| header.step = 4).contains("another step"));
    assert!(refused(|header, _| header.groups_in_step = 3).contains("lacks the rewards"));
    assert!(refused(|_, parts| parts.truncate(1)).contains("breaks off"));
    assert!(refused(|_, parts| parts[1].part = None).contains("not a group"));
}

#[test]
fn an_inconsistent_group_is_separated_from_its_share() {
    let apart = |change: fn(&mut v1::BatchHeader, &mut v1::ScoredGroup)| {
        let (mut header, mut parts) = parts();
        let Some(Part::Group(group)) = &mut parts[1].part else { panic!("a group comes second") };
        group.attempt = 2;
        change(&mut header, group);
        let (share, unusable) = share(Step(3), &header, parts.into_iter(), vec![]).unwrap();
        assert_eq!((share.groups.len(), share.step_rewards.len(), unusable.len()), (1, 2, 1));
        assert_eq!((unusable[0].index, unusable[0].attempt), (1, 2));
        unusable[0].cause.clone()
    };
    assert!(apart(|_, group| group.completions[0].logprobs[0] = f32::NAN).contains("logprobs is NaN"));
    assert!(apart(|_, group| drop(group.rewards.pop())).contains("ScoredGroup.rewards"));
    let cause = apart(|header, _| header.step_rewards[1].rewards[0].total = Some(f64::NAN));
    assert!(cause.contains("Reward.total is NaN"), "{cause}");
    // A rank without the group leaves the report to the rank that holds it.
    let (mut header, mut parts) = parts();
    header.groups = 1;
    header.step_rewards[1].rewards[0].total = Some(f64::NAN);
    parts.truncate(1);
    assert_eq!(share(Step(3), &header, parts.into_iter(), vec![]).unwrap().1, []);
}
