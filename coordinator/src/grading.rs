//! Checks submitted results and scores training completions before they are stored.

mod border;
mod sampling;

use podium_grpo::options::Credit;
use podium_grpo::{Completion, Group, GroupId, PolicyVersion, RankCredit};
use podium_proto::convert::{Slot, SlotResult};
use podium_proto::v1;
use podium_recsys::reward::ItemReward;
use podium_recsys::task::{Case, Task};

use crate::curriculum::Curriculum;
use crate::results::Results;
pub use border::{Border, Error};
pub use sampling::SamplingByWork;

/// Checks results and scores those of training slots under the version that sampled them.
pub fn grade(
    curriculum: &Curriculum,
    border: &Border,
    version: PolicyVersion,
    submitted: Vec<SlotResult>,
) -> Result<Results, Error> {
    let mut results = Results::default();
    for result in submitted {
        let case = border.check(curriculum, &result)?;
        match result.slot {
            Slot::Training(id) => {
                let task = curriculum.task();
                results
                    .groups
                    .push(score(task, border.sampling().credit(), id, version, &case, result).into());
            }
            Slot::Evaluation { version, index } => {
                // The log-probabilities of held-out answers are not used.
                let choice_logprobs = result.choice_logprobs.into_iter().next().unwrap_or_default();
                let answer = result.completions.into_iter().next().map(|mut completion| {
                    completion.logprobs.clear();
                    completion.sampled_logprobs = None;
                    completion.allowed.clear();
                    v1::Completion { choice_logprobs, ..completion.into() }
                });
                results.answers.extend(answer.map(|answer| (version, index, answer)));
            }
        }
    }
    Ok(results)
}

fn score(
    task: &Task,
    credit: Credit,
    id: GroupId,
    version: PolicyVersion,
    case: &Case,
    result: SlotResult,
) -> Group {
    let SlotResult { prompt_ids, completions, .. } = result;
    let (mut rewards, mut term_rewards, mut rank_credits) = (Vec::new(), Vec::new(), Vec::new());
    for completion in &completions {
        let grade = task.grade(case, &completion.text);
        rewards.push(Some(grade.score.total));
        term_rewards.push(grade.score.parts);
        rank_credits.push(match credit {
            Credit::Completion => vec![],
            Credit::Rank => credit_by_rank(grade.item_rewards, completion),
        });
    }
    Group {
        id,
        policy_version: version,
        prompt_ids,
        rank_credits,
        completions,
        reward_terms: task.rewards().names().to_vec(),
        rewards,
        term_rewards,
    }
}

/// Returns the rewards of a completion's listed items, with the tokens that spell each item.
fn credit_by_rank(items: Vec<ItemReward>, completion: &Completion) -> Vec<RankCredit> {
    let mut taken = 0;
    let credit = items.into_iter().map(|ItemReward { span, reward }| {
        // A token that ends one item and begins the next belongs to the first.
        let tokens = completion.tokens_of(&span);
        let start = tokens.start.max(taken);
        taken = tokens.end.max(start);
        RankCredit { tokens: start..taken, reward }
    });
    credit.collect()
}
