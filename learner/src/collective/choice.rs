//! Which collective a world uses.
//!
//! Each rank says at the rendezvous whether it can take part in NCCL, rank 0 with the id of a new communicator; the
//! coordinator passes the id on where all can. So all ranks of a generation decide alike.

use podium_config::CollectiveChoice;
use tch::Device;

use super::nccl::{self, Library};

/// Why there is no collective of the wanted kind.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// This rank cannot.
    #[error("network.collective is nccl, which this rank cannot take part in")]
    Own(#[source] nccl::Error),
    /// Other ranks cannot.
    #[error(
        "network.collective is nccl on this rank, but ranks {ranks:?} cannot take part in it: no GPU, no libnccl, or told \
         to use tcp"
    )]
    Others {
        /// Who cannot.
        ranks: Vec<u32>,
    },
}

/// What a rank can do.
#[derive(Debug, Clone)]
pub struct Offer {
    choice: CollectiveChoice,
    library: Option<Library>,
}

/// What all ranks of a world do.
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
    /// For hellos.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Nccl { .. } => "nccl",
        }
    }
}

impl Offer {
    /// Looks for what the choice needs. A world of one rank has nobody to talk to, and uses NCCL only where it is asked for
    /// by name.
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

    /// Whether this rank can take part in NCCL.
    pub const fn nccl(&self) -> bool {
        self.library.is_some()
    }

    /// The id of a new communicator; empty where there is none to make. For rank 0, once for every rendezvous.
    pub fn new_id(&self) -> Result<Vec<u8>, Error> {
        self.library.map_or_else(|| Ok(Vec::new()), |library| library.unique_id()).map_err(Error::Own)
    }

    /// What follows from the rendezvous: rank 0's id where all ranks can take part, and else those that cannot.
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
    fn who_demands_nccl_is_told_who_cannot() {
        let offer = Offer { choice: CollectiveChoice::Nccl, library: None };
        let error = offer.agree(Vec::new(), &[1, 3]).unwrap_err().to_string();
        assert!(error.contains("ranks [1, 3] cannot take part"), "{error}");
    }
}
