//! Forward and backward pass of a micro-batch.

use podium_grpo::Group;
use podium_model::{Entropy, GroupTokens, Packed, TrainingOptions};

use super::gaps::Gaps;
use super::updater::Updater;
use crate::batch::MicroBatch;
use crate::lora;
use crate::loss::{Objective, OnDevice, Tokens, objective};
use crate::reference::Reference;

/// A micro-batch during the passes of a step.
pub(super) struct InHand<'a> {
    pub(super) batch: &'a MicroBatch<'a>,
    /// Stored by the first pass for later ones.
    pub(super) tokens: Option<Tokens>,
}

impl Updater {
    /// Adds a micro-batch's gradient to the gradients of the parameters.
    pub(super) fn accumulate<'a>(
        &self,
        one: &mut InHand<'a>,
        last: bool,
    ) -> Result<(OnDevice, Option<Gaps<'a>>), podium_model::packed::Error> {
        let batch = one.batch;
        #[cfg(test)]
        crate::memory::injected::take(batch.groups.len());
        let packed = packed(&batch.groups)?;
        let (temperature, options) = (self.file.rollout.temperature, &self.file.grpo);
        let mut tokens = if let Some(tokens) = one.tokens.take() {
            tokens
        } else {
            let score =
                |reference: &Reference| reference.policy().score(&packed, temperature, Entropy::Skipped);
            let reference = self.reference.as_ref().map(score).transpose()?;
            Tokens::new(batch, reference.map(|scores| scores.logprobs).as_ref(), self.policy.device())
        };
        let (metrics, gap) = if batch.moves {
            let entropy =
                if options.entropy_coef == 0.0 { Entropy::Measured } else { Entropy::Differentiable };
            let pass = TrainingOptions {
                temperature,
                entropy,
                recompute_layers: self.file.learner.recompute_layers,
                dropout: Some(lora::dropout(&self.file, self.optimizer.steps())),
            };
            let pass = self.policy.training_pass(&packed, pass)?;
            let scores = pass.scores();
            let Objective { loss, metrics, gap } =
                objective(&scores.logprobs, scores.entropy.as_ref(), &mut tokens, options);
            loss.backward();
            pass.backward();
            (metrics, gap)
        } else {
            let scores = self.policy.score(&packed, temperature, Entropy::Measured)?;
            let Objective { metrics, gap, .. } =
                objective(&scores.logprobs, scores.entropy.as_ref(), &mut tokens, options);
            (metrics, gap)
        };
        if !last {
            one.tokens = Some(tokens);
        }
        Ok((metrics, gap.map(|gap| Gaps::new(&batch.groups, &gap))))
    }
}

/// Packs the groups as one batch, with the set of tokens that each token was sampled from.
pub(super) fn packed(groups: &[&Group]) -> Result<Packed, podium_model::packed::Error> {
    let packed = Packed::new(&groups.iter().map(|group| tokens(group)).collect::<Vec<_>>())?;
    let completions = groups.iter().flat_map(|group| &group.completions).enumerate();
    packed.restricted(completions.flat_map(|(index, completion)| {
        let allowed = completion.allowed.iter();
        allowed.map(move |allowed| (index, allowed.position as usize, &*allowed.token_ids))
    }))
}

pub(super) fn tokens(group: &Group) -> GroupTokens<'_> {
    let completions = group.completions.iter().map(|completion| completion.token_ids.as_slice()).collect();
    GroupTokens { prompt: &group.prompt_ids, completions }
}
