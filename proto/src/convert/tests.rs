use podium_grpo::{Completion, Group, RankCredit};

use super::*;

fn completion() -> v1::Completion {
    v1::Completion {
        token_ids: vec![3, 1],
        text: "a".into(),
        text_ends: vec![1, 1],
        logprobs: vec![-0.5, -0.25],
        sampled_logprobs: vec![],
        finish_reason: v1::FinishReason::Stop.into(),
        allowed: vec![v1::Allowed { position: 1, token_ids: vec![1, 2] }],
        choice_logprobs: vec![],
    }
}

fn rank(first_token: u32, end_token: u32, reward: f64) -> v1::RankReward {
    v1::RankReward { first_token, end_token, reward }
}

#[test]
fn a_group_survives_the_round_trip() {
    let message = v1::ScoredGroup {
        step: 4,
        index: 2,
        attempt: 1,
        policy_version: 4,
        prompt_ids: vec![7],
        completions: vec![completion(), completion()],
        reward_terms: vec!["form".into()],
        rewards: vec![
            v1::Reward { total: Some(0.5), terms: vec![1.0], ranks: vec![rank(0, 1, 0.5), rank(1, 2, -1.0)] },
            v1::Reward { total: None, terms: vec![0.0], ranks: vec![] },
        ],
    };
    let group = Group::try_from_message(message.clone()).unwrap();
    assert_eq!(group.rewards, [Some(0.5), None]);
    assert_eq!(group.rank_credits[0][1], RankCredit { tokens: 1..2, reward: -1.0 });
    assert_eq!(group.rank_credits[1], []);
    assert_eq!(v1::ScoredGroup::from(group), message);
}

#[test]
fn inconsistent_messages_are_refused() {
    let refused = |change: fn(&mut v1::Completion)| {
        let mut message = completion();
        change(&mut message);
        Completion::try_from_message(message).unwrap_err().to_string()
    };
    assert!(refused(|c| c.logprobs.truncate(1)).contains("expected 2"));
    assert!(refused(|c| c.logprobs[0] = f32::NAN).contains("finite"));
    assert!(refused(|c| c.logprobs[1] = 0.5).contains("at most 0"));
    assert!(refused(|c| c.sampled_logprobs = vec![-1.0]).contains("sampled_logprobs"));
    assert!(refused(|c| c.allowed[0].position = 2).contains("Allowed.position"));
    assert!(refused(|c| c.allowed.push(c.allowed[0].clone())).contains("Allowed.position"));
    assert!(refused(|c| c.allowed[0].token_ids = vec![2, 1]).contains("Allowed.token_ids"));
    assert!(refused(|c| c.allowed[0].token_ids = vec![2, 3]).contains("the sampled token"));
    assert!(refused(|c| c.finish_reason = 9).contains("STOP or LENGTH"));
    assert!(refused(|c| c.text_ends.truncate(1)).contains("Completion.text_ends has 1 entries: expected 2"));
    assert!(refused(|c| c.text_ends = vec![1, 0]).contains("0 after 1: expected ascending"));
    assert!(refused(|c| c.text_ends = vec![0, 2]).contains("the length of the text"));
    for (ranks, expected) in [
        (vec![rank(0, 1, f64::INFINITY)], "finite"),
        (vec![rank(1, 0, 0.0)], "ascending"),
        (vec![rank(0, 2, 0.0), rank(1, 2, 0.0)], "do not overlap"),
    ] {
        let reward = v1::Reward { total: Some(0.0), terms: vec![], ranks };
        assert!(rank_credits(&[reward]).unwrap_err().to_string().contains(expected));
    }
    let reward = v1::Reward { total: Some(0.0), terms: vec![], ranks: vec![rank(0, 3, 0.0)] };
    let beyond = v1::ScoredGroup {
        completions: vec![completion()],
        rewards: vec![reward],
        ..v1::ScoredGroup::default()
    };
    assert!(Group::try_from_message(beyond).unwrap_err().to_string().contains("end_token is 3"));
    assert!(uuid("LeaseRequest.worker_id", "x").unwrap_err().to_string().contains("LeaseRequest.worker_id"));
    let unlikely = v1::TaskResult {
        purpose: Some(v1::task_result::Purpose::Evaluation(v1::EvaluationSlot::default())),
        prompt_ids: vec![1],
        completions: vec![v1::Completion { choice_logprobs: vec![-1.0, f64::NAN], ..completion() }],
    };
    let refused = SlotResult::try_from(unlikely).unwrap_err().to_string();
    assert!(refused.contains("choice_logprobs is NaN"), "{refused}");
    let nothing = v1::TaskResult { purpose: None, prompt_ids: vec![1], completions: vec![] };
    assert_eq!(SlotResult::try_from(nothing), Err(Error::Missing { field: "TaskResult.purpose" }));
}
