use std::{
    collections::HashMap,
    io, mem,
    net::{IpAddr, Ipv6Addr},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use secrecy::{ExposeSecret, SecretString};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::{AuthnError, Source, workers::Workers};
use crate::{
    crypto::{Pepper, SecretHashError},
    domain::TenantId,
};

/// Most calls that wait for their turn, of those who make keys and of anybody; more are turned away at once. And most of them
/// for one tenant, or from one site, so that one alone cannot keep the others out.
const WAITING: Most = Most { each: 16, all: 64 };
/// The same of those who show keys that were right before, and are all to be checked anew now and then: about as many as have
/// their turn in time.
const WAITING_PROVEN: Most = Most { each: 128, all: 256 };
/// Longest wait for a turn.
const PATIENCE: Duration = Duration::from_secs(3);

/// Hashes a few secrets at a time, so that no flood of them takes all memory or every processor (AUTHN-12).
#[derive(Debug)]
pub(super) struct Hashing {
    pepper: Pepper,
    workers: Workers,
    turns: Arc<Semaphore>,
    waiting: Mutex<HashMap<Share, usize>>,
}

/// Who wants a secret hashed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Asker {
    /// Somebody of this tenant who was let in, and makes a key.
    Maker(TenantId),
    /// Somebody who shows a key of this tenant that was right before.
    Proven(TenantId),
    /// Anybody, from here.
    Anybody(Source),
}

impl Hashing {
    /// An error if the operating system has no thread left.
    pub(super) fn new(pepper: Pepper, concurrent: usize) -> io::Result<Self> {
        let workers = Workers::start(concurrent)?;
        Ok(Self { pepper, workers, turns: Arc::new(Semaphore::new(concurrent)), waiting: Mutex::default() })
    }

    /// The hash of a new secret, for this tenant.
    pub(super) async fn hash(&self, secret: &SecretString, tenant: TenantId) -> Result<String, AuthnError> {
        let secret = secret.clone();
        self.in_turn(Asker::Maker(tenant), || Ok(()), move |pepper| pepper.hash(secret.expose_secret())).await
    }

    /// Whether the hash is of the secret. `admit` is asked when the turn has come, since others may have failed
    /// in the meantime.
    pub(super) async fn verify(
        &self,
        secret: &str,
        hash: String,
        asker: Asker,
        admit: impl FnOnce() -> Result<(), AuthnError>,
    ) -> Result<bool, AuthnError> {
        let secret = SecretString::from(secret);
        self.in_turn(asker, admit, move |pepper| pepper.verify(secret.expose_secret(), &hash)).await
    }

    async fn in_turn<T: Send + 'static>(
        &self,
        asker: Asker,
        admit: impl FnOnce() -> Result<(), AuthnError>,
        work: impl FnOnce(&Pepper) -> Result<T, SecretHashError> + Send + 'static,
    ) -> Result<T, AuthnError> {
        let turn = self.turn(asker).await.ok_or(AuthnError::Unavailable("busy"))?;
        admit()?;
        let pepper = self.pepper.clone();
        // The turn goes along: it ends with the work, also if the caller is gone before.
        let work = move || {
            let _turn = turn;
            work(&pepper)
        };
        let done = self.workers.run(work).await;
        done.and_then(Result::ok).ok_or_else(|| {
            tracing::error!("a secret could not be hashed");
            AuthnError::Unavailable("hashing")
        })
    }

    async fn turn(&self, asker: Asker) -> Option<OwnedSemaphorePermit> {
        let _place = self.place(asker.share())?;
        let turn = tokio::time::timeout(PATIENCE, Arc::clone(&self.turns).acquire_owned()).await;
        // The semaphore is never closed.
        turn.ok().and_then(Result::ok)
    }

    /// A place among those who wait, if there is one left in the share.
    fn place(&self, share: Share) -> Option<Place<'_>> {
        let mut waiting = self.waiting();
        let here = waiting.get(&share).copied().unwrap_or(0);
        // Whoever is known finds a place however many come who are not, and however many make keys.
        let alike = waiting.iter().filter(|(other, _)| mem::discriminant(*other) == mem::discriminant(&share));
        let most = share.most();
        if here >= most.each || alike.map(|(_, waiting)| waiting).sum::<usize>() >= most.all {
            return None;
        }
        waiting.insert(share, here + 1);
        Some(Place { hashing: self, share })
    }

    fn waiting(&self) -> MutexGuard<'_, HashMap<Share, usize>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whose share of the places somebody takes of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Share {
    Makers(TenantId),
    Proven(TenantId),
    Site(IpAddr),
}

/// How many wait at most, of each share and of all like it.
struct Most {
    each: usize,
    all: usize,
}

impl Share {
    fn most(self) -> Most {
        match self {
            Self::Makers(_) | Self::Site(_) => WAITING,
            Self::Proven(_) => WAITING_PROVEN,
        }
    }
}

impl Asker {
    fn share(self) -> Share {
        match self {
            Self::Maker(tenant) => Share::Makers(tenant),
            Self::Proven(tenant) => Share::Proven(tenant),
            Self::Anybody(source) => Share::Site(site(source)),
        }
    }
}

/// Where a source is: itself, or of IPv6 the /48 around it, which is what one site gets and has 65 536 sources (RFC 6177
/// section 2).
fn site(source: Source) -> IpAddr {
    match source.0 {
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() >> 80 << 80).into(),
        address @ IpAddr::V4(_) => address,
    }
}

/// Taken by one who waits.
struct Place<'h> {
    hashing: &'h Hashing,
    share: Share,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let mut waiting = self.hashing.waiting();
        match waiting.get_mut(&self.share) {
            Some(here) if *here > 1 => *here -= 1,
            _ => {
                waiting.remove(&self.share);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn authn_12_places_in_the_queue_are_few_in_all_and_for_each_and_are_given_back() {
        let pepper = Pepper::from_base64("AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=").unwrap();
        let hashing = Hashing::new(pepper, 1).unwrap();
        let site = |n: u8| Asker::Anybody(Source([192, 0, 2, n].into())).share();
        let tenant = |n: u8| TenantId::from_uuid(uuid::Uuid::from_u128(n.into()));
        let makers = |n: u8| Asker::Maker(tenant(n)).share();
        let proven = |n: u8| Asker::Proven(tenant(n)).share();
        let mut all = Vec::new();
        // Those of one kind take none of the others'.
        for (share, each, last) in [(&site as &dyn Fn(u8) -> Share, 16, 4), (&makers, 16, 4), (&proven, 128, 2)] {
            let mut places = Vec::new();
            for n in 1..=last {
                places.extend((0..each).map(|_| hashing.place(share(n)).unwrap()));
                assert!(hashing.place(share(n)).is_none(), "one has more than its share");
            }
            assert!(hashing.place(share(last + 1)).is_none(), "more wait than may");
            places.pop();
            let again = hashing.place(share(last)).unwrap();
            assert!(hashing.place(share(last)).is_none(), "one that was given back was given twice");
            all.push((places, again));
        }
        drop(all);
        assert!(hashing.waiting().is_empty(), "those are remembered that wait no more");
    }

    #[test]
    fn authn_12_the_networks_of_one_site_have_one_share() {
        let site_of = |text: &str| site(Source(text.parse().unwrap())).to_string();
        assert_eq!(site_of("2001:db8:1:ffff::"), "2001:db8:1::");
        assert_eq!(site_of("2001:db8:2:ffff::"), "2001:db8:2::");
        assert_eq!(site_of("192.0.2.7"), "192.0.2.7");
    }
}
