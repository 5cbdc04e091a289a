//! The sampling parameters of a run.

use podium_config::RunFile;
use podium_config::sections::{LikelihoodLength, LikelihoodReasoning};
use podium_grpo::options::Credit;
use podium_proto::v1;

use crate::machine::Work;

/// The sampling parameters of a run. Leases include them, and results are checked against them.
#[derive(Debug, Clone, Copy)]
pub struct SamplingByWork {
    training: v1::Sampling,
    evaluation: v1::Sampling,
    credit: Credit,
}

impl SamplingByWork {
    /// Returns the sampling parameters of a run file.
    pub fn of(file: &RunFile) -> Self {
        let rollout = &file.rollout;
        let training = v1::Sampling {
            group_size: rollout.group_size,
            temperature: rollout.temperature,
            top_p: rollout.top_p,
            top_k: rollout.top_k,
            max_new_tokens: rollout.max_new_tokens,
            seed: file.run.seed,
            constrain_answers: rollout.constrain_answers,
            likelihood: None,
        };
        // Evaluations sample from the whole distribution, or take its mode: a filter for training would
        // inflate the metrics.
        let evaluation = v1::Sampling {
            group_size: 1,
            temperature: file.evaluation.temperature,
            likelihood: file.evaluation.likelihood.then_some(v1::Likelihood {
                without_reasoning: file.evaluation.likelihood_reasoning == LikelihoodReasoning::None,
                per_token: file.evaluation.likelihood_length == LikelihoodLength::Mean,
            }),
            top_p: 1.0,
            top_k: 0,
            ..training
        };
        Self { training, evaluation, credit: file.grpo.credit }
    }

    /// Returns the unit that rewards are credited to.
    pub(super) const fn credit(&self) -> Credit {
        self.credit
    }

    /// Returns the sampling parameters of a piece of work.
    pub const fn for_work(&self, work: Work) -> v1::Sampling {
        match work {
            Work::Training(_) => self.training,
            Work::Evaluation(_) => self.evaluation,
        }
    }
}
