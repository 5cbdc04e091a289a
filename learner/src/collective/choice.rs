//! Choice of the collective of a rank group.
//!
//! At the rendezvous each rank reports whether it supports NCCL, rank 0 with the id of a new communicator. The
//! coordinator forwards the id if all ranks support it, so that all ranks of an epoch choose the same collective.

use podium_config::CollectiveChoice;
use tch::Device;

use super::nccl::{self, Library};

/// The reasons why the requested collective is unavailable.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// This rank does not support it.
    #[error("network.collective is nccl, which this rank does not support")]
    Own(#[source] nccl::Error),
    /// Other ranks do not support it.
    #[error(
        "network.collective is nccl on this rank, but ranks {ranks:?} do not support it: they have no GPU, no \
         libnccl, or the setting tcp"
    )]
    Others {
        /// The ranks without support.
        ranks: Vec<u32>,
    },
}

/// The collectives that a rank supports.
#[derive(Debug, Clone)]
pub struct Offer {
    choice: CollectiveChoice,
    library: Option<Library>,
}

/// The collective that all ranks of a group use.
#[derive(Debug, Clone)]
pub enum Agreed {
    /// Sums over TCP.
    Tcp,
    /// Sums over NCCL, in the communicator of this id.
    Nccl {
        /// The library.
        library: Library,
        /// The unique id.
        id: Vec<u8>,
    },
}

impl Agreed {
    /// The name that is compared at the rendezvous.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Nccl { .. } => "nccl",
        }
    }
}

impl Offer {
    /// Looks for the library that the choice requires. A group of one rank needs no communication and uses NCCL only
    /// if the setting is nccl.
    pub fn find(choice: CollectiveChoice, device: Device, world_size: u32) -> Result<Self, Error> {
        let find = || Library::find().and_then(|library| library.serves(device).map(|()| library));
        let library = match choice {
            CollectiveChoice::Tcp => None,
            CollectiveChoice::Nccl => Some(find().map_err(Error::Own)?),
            CollectiveChoice::Auto if world_size == 1 || device == Device::Cpu => None,
            CollectiveChoice::Auto => match find() {
                Ok(library) => Some(library),
                Err(error) => {
                    tracing::warn!("{error}: ranks will sum over tcp");
                    None
                }
            },
        };
        Ok(Self { choice, library })
    }

    /// Whether this rank supports NCCL.
    pub const fn nccl(&self) -> bool {
        self.library.is_some()
    }

    /// Returns the id of a new communicator; empty without NCCL. Rank 0 calls it once for every rendezvous.
    pub fn new_id(&self) -> Result<Vec<u8>, Error> {
        self.library.map_or_else(|| Ok(Vec::new()), |library| library.unique_id()).map_err(Error::Own)
    }

    /// Derives the collective from the rendezvous: rank 0's id if all ranks support NCCL, otherwise the ranks without
    /// support.
    pub fn agree(&self, id: Vec<u8>, without: &[u32]) -> Result<Agreed, Error> {
        match self.library {
            Some(library) if without.is_empty() && !id.is_empty() => Ok(Agreed::Nccl { library, id }),
            _ if self.choice == CollectiveChoice::Nccl => Err(Error::Others { ranks: without.to_vec() }),
            _ => Ok(Agreed::Tcp),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_a_gpu_sums_go_over_tcp_unless_nccl_is_demanded() {
        for choice in [CollectiveChoice::Auto, CollectiveChoice::Tcp] {
            let offer = Offer::find(choice, Device::Cpu, 2).unwrap();
            assert!(!offer.nccl() && offer.new_id().unwrap().is_empty());
            assert_eq!(offer.agree(Vec::new(), &[0, 1]).unwrap().name(), "tcp");
        }
        let error = Offer::find(CollectiveChoice::Nccl, Device::Cpu, 2).unwrap_err();
        assert!(
            matches!(error, Error::Own(nccl::Error::NotFound { .. } | nccl::Error::NoGpu { .. })),
            "{error:?}"
        );
    }

    #[test]
    fn an_unavailable_nccl_error_lists_the_ranks_without_support() {
        let offer = Offer { choice: CollectiveChoice::Nccl, library: None };
        let error = offer.agree(Vec::new(), &[1, 3]).unwrap_err().to_string();
        assert!(error.contains("ranks [1, 3] do not support it"), "{error}");
    }
}
