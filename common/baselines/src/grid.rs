//! The models and the settings that are tried for each. docs/design/baselines.md lists them.

use serde::{Deserialize, Serialize};

use crate::pairs::{bpr, lightgcn};
use crate::sequences::{gru4rec, sasrec};
use crate::{ease, sequences};

/// A model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Model {
    /// Self-attention over the history (Kang and McAuley 2018) with full softmax cross-entropy.
    SasRec,
    /// SASRec with its original loss: one sampled negative for each target.
    SasRecBinary,
    /// A recurrent network over the history (Hidasi et al. 2016) with full softmax cross-entropy.
    Gru4Rec,
    /// Matrix factorization with the pairwise loss BPR (Rendle et al. 2009).
    BprMf,
    /// Graph convolution over users and items (He et al. 2020) with BPR.
    LightGcn,
    /// A linear item-to-item model in closed form (Steck 2019).
    Ease,
}

impl Model {
    /// All models, in the order of tables.
    pub const ALL: [Self; 6] =
        [Self::SasRec, Self::SasRecBinary, Self::Gru4Rec, Self::BprMf, Self::LightGcn, Self::Ease];

    /// Returns the name in tables.
    pub const fn name(self) -> &'static str {
        match self {
            Self::SasRec => "SASRec",
            Self::SasRecBinary => "SASRec (one negative)",
            Self::Gru4Rec => "GRU4Rec",
            Self::BprMf => "BPR-MF",
            Self::LightGcn => "LightGCN",
            Self::Ease => "EASE",
        }
    }

    /// Returns the name of its folder and in commands.
    pub const fn id(self) -> &'static str {
        match self {
            Self::SasRec => "sasrec",
            Self::SasRecBinary => "sasrec-binary",
            Self::Gru4Rec => "gru4rec",
            Self::BprMf => "bpr-mf",
            Self::LightGcn => "lightgcn",
            Self::Ease => "ease",
        }
    }
}

/// The settings of one trial.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Settings {
    /// Of SASRec with either loss.
    SasRec(sasrec::Settings),
    /// Of GRU4Rec.
    Gru4Rec(gru4rec::Settings),
    /// Of LightGCN.
    LightGcn(lightgcn::Settings),
    /// Of BPR-MF.
    BprMf(bpr::Settings),
    /// Of EASE.
    Ease(ease::Settings),
}

/// Returns the settings that are tried for a model.
pub fn grid(model: Model) -> Vec<Settings> {
    match model {
        Model::SasRec | Model::SasRecBinary => {
            let loss =
                if model == Model::SasRec { sequences::Loss::CrossEntropy } else { sequences::Loss::Binary };
            [0.2, 0.5]
                .map(|dropout| {
                    Settings::SasRec(sasrec::Settings { dropout, loss, ..sasrec::Settings::default() })
                })
                .into()
        }
        Model::Gru4Rec => [0.2, 0.5]
            .map(|dropout| Settings::Gru4Rec(gru4rec::Settings { dropout, ..gru4rec::Settings::default() }))
            .into(),
        Model::BprMf => [1e-3, 1e-2, 1e-1]
            .map(|regularization| {
                Settings::BprMf(bpr::Settings { regularization, ..bpr::Settings::default() })
            })
            .into(),
        Model::LightGcn => [(2, 1e-4), (2, 1e-2), (3, 1e-4), (3, 1e-2)]
            .map(|(layers, regularization)| {
                Settings::LightGcn(lightgcn::Settings {
                    layers,
                    regularization,
                    ..lightgcn::Settings::default()
                })
            })
            .into(),
        Model::Ease => [50.0, 100.0, 200.0, 400.0, 800.0, 1600.0]
            .map(|regularization| Settings::Ease(ease::Settings { regularization }))
            .into(),
    }
}
