//! The rank groups of a run: every rendezvous, and the steps of its group.

use std::time::Duration;

use super::error::Error;
use super::gate::Gate;
use super::learner::Learner;
use super::steps::End;
use crate::collective::choice::{Agreed, Offer};
use crate::collective::nccl::Nccl;
use crate::collective::star::{Hello, Star};
use crate::collective::tcp::Tcp;
use crate::collective::{Alone, Collective};
use crate::rank::{Position, Rank};
use crate::session::{RankGroup, Rendezvous};

/// Maximum number of consecutive rendezvous without a finished step.
const MAX_FRUITLESS_EPOCHS: u32 = 3;

impl Learner<'_> {
    /// Joins rank groups and takes their steps until the run is over. Calls `ready` once all ranks are connected.
    pub(super) async fn train(&self, gate: Option<&Gate>, ready: impl Fn()) -> Result<(), Error> {
        let address = gate.map(|gate| gate.address.clone()).unwrap_or_default();
        let (choice, world_size) = (self.file.network.collective, self.identity.world_size);
        let offer = self
            .on_device("look for NCCL", move |rank| Offer::find(choice, rank.device(), world_size))
            .await?;
        let (mut fruitless, mut reason, mut goes_back) = (0, String::new(), false);
        loop {
            let disconnect: fn(&mut Rank) -> _ = if goes_back { Rank::roll_back } else { Rank::shut_down };
            let newest = self.on_device("disconnect from the rank group", disconnect).await?;
            goes_back = false;
            let rendezvous = Rendezvous {
                collective_address: address.clone(),
                next_step: newest,
                nccl: offer.nccl(),
                reason: std::mem::take(&mut reason),
                nccl_id: if self.identity.rank == 0 { self.new_nccl_id(&offer).await? } else { Vec::new() },
            };
            let group = self.session.join(rendezvous).await?;
            let dropped = group.dropped.clone();
            self.on_device("remove void checkpoints", move |rank| rank.forget(dropped)).await?;
            let agreed = offer.agree(group.nccl_id.clone(), &group.without_nccl)?;
            let outcome = match self.enter(&group, agreed, gate).await {
                Ok(position) => {
                    ready();
                    self.steps(position).await
                }
                Err(error) => Err(error),
            };
            let steps = match outcome {
                Ok(End::RunOver) => return Ok(()),
                Ok(End::Rejoin { steps }) => {
                    tracing::info!("another rank restarted: joining again");
                    steps
                }
                Ok(End::RollBack { version }) => {
                    reason = format!("the steps that make {version} are repeated, since it was lost");
                    tracing::warn!("{reason}");
                    goes_back = true;
                    1
                }
                Err(error) if error.may_be_resolved_by_rendezvous() && fruitless < MAX_FRUITLESS_EPOCHS => {
                    tracing::warn!("{error}: joining again");
                    reason = error.to_string();
                    0
                }
                Err(error) => return Err(error),
            };
            crate::metrics::rejoined();
            fruitless = if steps > 0 { 0 } else { fruitless + 1 };
        }
    }

    async fn new_nccl_id(&self, offer: &Offer) -> Result<Vec<u8>, Error> {
        let offer = offer.clone();
        self.on_device("make an id for NCCL", move |_| offer.new_id()).await
    }

    /// Connects to the other ranks and receives the common state.
    async fn enter(&self, group: &RankGroup, agreed: Agreed, gate: Option<&Gate>) -> Result<Position, Error> {
        let deadline = Duration::from_millis(self.file.network.collective_timeout_ms);
        let hello = Hello {
            run_hash: self.identity.run_hash.clone(),
            generation: group.generation,
            rank: self.identity.rank,
            world_size: self.identity.world_size,
            code_version: self.identity.code_version.to_owned(),
            collective: agreed.name().to_owned(),
        };
        let address = group.collective_address.clone();
        let own = gate.and_then(|gate| gate.listener.try_clone().ok());
        let name = agreed.name();
        let connect = move |device| -> Result<Box<dyn Collective>, Error> {
            let star = match own {
                _ if hello.world_size == 1 => Star::alone(deadline),
                Some(listener) => Star::gather(&listener, &hello, deadline)?,
                None => Star::connect(&address, &hello, deadline)?,
            };
            Ok(match agreed {
                Agreed::Nccl { library, id } => Box::new(Nccl::set_up(star, &library, &id, device)?),
                Agreed::Tcp if hello.world_size == 1 => Box::new(Alone),
                Agreed::Tcp => Box::new(Tcp::new(star)),
            })
        };
        let position = self.on_device("connect the ranks", move |rank| match connect(rank.device()) {
            Ok(collective) => rank.enter(collective).map_err(Error::from),
            Err(error) => Err(error),
        });
        let position = position.await?;
        tracing::info!(
            "all ranks are connected ({} over {name}): next is {}",
            self.identity.world_size,
            position.next_step
        );
        Ok(position)
    }
}
