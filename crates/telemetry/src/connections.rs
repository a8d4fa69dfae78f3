//! A table of connections that have proved nothing yet, which never turns a new one away.
//!
//! Anyone who reaches a port can open connections and send nothing. A table that is full and waits, or refuses, would let
//! them keep everybody else out. This one closes a connection to make room: the oldest one of the address that has
//! the most. So a crowd at one address takes places from itself, and at equal numbers the oldest goes first.
//!
//! Who has just come needs a moment to prove itself. Where a flood from its own address would close a connection before
//! that, the flood waits: a connection stays for its *grace*, so a flood is admitted at a bounded rate.
//!
//! * [`ConnectionTable::admit`] gives a [`Place`]. At most twice as many exist at any moment as the table has places:
//!   those that were evicted may not be gone yet.
//! * [`Place::evicted`] completes when the connection has to be closed. The place is free when it is dropped.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::{IpAddr, Ipv6Addr},
    sync::Arc,
    time::Duration,
};

use parking_lot::Mutex;
use tokio::{
    sync::Notify,
    time::{Instant, sleep_until},
};

/// The connections of one port, of which a fixed number stays open.
#[derive(Debug)]
pub struct ConnectionTable {
    capacity: usize,
    grace: Duration,
    places: Mutex<Places>,
    freed: Notify,
}

#[derive(Debug, Default)]
struct Places {
    /// How many were given out and not dropped, evicted ones among them.
    taken: usize,
    next: u64,
    /// Those that were not evicted, by age.
    open: BTreeMap<u64, Open>,
    by_origin: HashMap<IpAddr, BTreeSet<u64>>,
}

#[derive(Debug)]
struct Open {
    origin: IpAddr,
    since: Instant,
    evict: Arc<Notify>,
}

/// The place of one connection in a [`ConnectionTable`].
#[derive(Debug)]
pub struct Place {
    table: Arc<ConnectionTable>,
    number: u64,
    evict: Arc<Notify>,
}

impl ConnectionTable {
    /// A table with `capacity` places, one at least, in which a connection stays for `grace` at least where those that
    /// want its place come from its own address.
    #[must_use]
    pub fn new(capacity: usize, grace: Duration) -> Arc<Self> {
        let (places, freed) = (Mutex::default(), Notify::new());
        Arc::new(Self { capacity: capacity.max(1), grace, places, freed })
    }

    /// A place for a connection from `peer`. Where the table is full, another one is evicted.
    pub async fn admit(self: &Arc<Self>, peer: IpAddr) -> Place {
        let origin = origin(peer);
        loop {
            let freed = self.freed.notified();
            let later = {
                let mut places = self.places.lock();
                match places.make_room(self, origin) {
                    Room::Now => return places.take(self, origin),
                    Room::At(time) => Some(time),
                    Room::WhenFreed => None,
                }
            };
            match later {
                None => freed.await,
                Some(time) => tokio::select! {
                    () = freed => {}
                    () = sleep_until(time) => {}
                },
            }
        }
    }
}

/// When there is room for one more connection.
enum Room {
    Now,
    At(Instant),
    WhenFreed,
}

impl Places {
    fn take(&mut self, table: &Arc<ConnectionTable>, origin: IpAddr) -> Place {
        let (number, evict) = (self.next, Arc::new(Notify::new()));
        self.next += 1;
        self.taken += 1;
        let open = Open { origin, since: Instant::now(), evict: Arc::clone(&evict) };
        self.open.insert(number, open);
        self.by_origin.entry(origin).or_default().insert(number);
        Place { table: Arc::clone(table), number, evict }
    }

    /// Evicts a connection for one from `origin`, if one has to go.
    fn make_room(&mut self, table: &ConnectionTable, origin: IpAddr) -> Room {
        if self.taken >= 2 * table.capacity {
            return Room::WhenFreed;
        }
        if self.open.len() < table.capacity {
            return Room::Now;
        }
        let Some((count, number)) = self.candidate() else { return Room::Now };
        let own = self.by_origin.get(&origin).map_or(0, BTreeSet::len);
        let until = self.open.get(&number).map(|open| open.since + table.grace);
        match until.filter(|until| count <= own + 1 && Instant::now() < *until) {
            Some(until) => Room::At(until),
            None => {
                if let Some(open) = self.forget(number) {
                    open.evict.notify_one();
                }
                Room::Now
            }
        }
    }

    /// The oldest connection of the address that has the most, and how many that has. Of several such addresses, the
    /// oldest of all.
    fn candidate(&self) -> Option<(usize, u64)> {
        let oldest = self.by_origin.values().filter_map(|of| Some((of.len(), *of.first()?)));
        oldest.max_by_key(|(count, first)| (*count, u64::MAX - first))
    }

    fn forget(&mut self, number: u64) -> Option<Open> {
        let open = self.open.remove(&number)?;
        if let Some(of) = self.by_origin.get_mut(&open.origin) {
            of.remove(&number);
            if of.is_empty() {
                self.by_origin.remove(&open.origin);
            }
        }
        Some(open)
    }
}

impl Place {
    /// Completes when the connection has to be closed for a newer one.
    pub async fn evicted(&self) {
        self.evict.notified().await;
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut places = self.table.places.lock();
        places.forget(self.number);
        places.taken -= 1;
        self.table.freed.notify_waiters();
    }
}

/// What counts as one address: of IPv6 the network of 64 bits, all of which one host may have.
fn origin(peer: IpAddr) -> IpAddr {
    match peer.to_canonical() {
        IpAddr::V6(v6) => {
            let [a, b, c, d, ..] = v6.segments();
            IpAddr::V6(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0))
        }
        v4 => v4,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use tokio::time::timeout;

    use super::*;

    const A: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));
    const B: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 2));

    const GRACE: Duration = Duration::from_secs(1);

    async fn is_evicted(place: &Place) -> bool {
        timeout(Duration::from_millis(1), place.evicted()).await.is_ok()
    }

    /// Admits one to a full table, and drops the place of the one that was evicted for it: its number.
    async fn admit(table: &Arc<ConnectionTable>, held: &mut VecDeque<Place>, peer: IpAddr) -> u64 {
        held.push_back(table.admit(peer).await);
        for index in 0..held.len() {
            if is_evicted(&held[index]).await {
                return held.remove(index).map_or(u64::MAX, |place| place.number);
            }
        }
        u64::MAX
    }

    #[tokio::test(start_paused = true)]
    async fn the_oldest_goes_where_all_come_from_one_address() {
        let table = ConnectionTable::new(3, Duration::ZERO);
        let mut held = VecDeque::new();
        for _ in 0..3 {
            held.push_back(table.admit(A).await);
        }
        for expected in 0..5 {
            assert_eq!(admit(&table, &mut held, A).await, expected);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_crowd_takes_places_from_itself_and_not_from_an_older_one_of_another_address() {
        let table = ConnectionTable::new(4, GRACE);
        let mut held = VecDeque::from([table.admit(B).await]);
        for _ in 0..3 {
            held.push_back(table.admit(A).await);
        }
        for expected in 1..9 {
            assert_eq!(admit(&table, &mut held, A).await, expected);
        }
        assert!(held.iter().any(|place| place.number == 0));
    }

    #[tokio::test(start_paused = true)]
    async fn one_network_of_ipv6_is_one_address() {
        let table = ConnectionTable::new(3, Duration::ZERO);
        let near: IpAddr = "2001:db8::1".parse().unwrap();
        let mut held = VecDeque::from([table.admit(near).await]);
        for host in ["2001:db8:0:1::1", "2001:db8:0:1::2"] {
            held.push_back(table.admit(host.parse().unwrap()).await);
        }
        assert_eq!(admit(&table, &mut held, near).await, 1);
        assert_eq!(origin("::ffff:192.0.2.1".parse().unwrap()), A);
    }

    #[tokio::test(start_paused = true)]
    async fn a_new_connection_outlives_a_flood_from_its_address_for_its_grace() {
        let table = ConnectionTable::new(3, GRACE);
        let begun = Instant::now();
        let mut held = VecDeque::new();
        for _ in 0..3 {
            held.push_back(table.admit(A).await);
        }
        assert_eq!(begun.elapsed(), Duration::ZERO);
        for expected in 0..3 {
            assert_eq!(admit(&table, &mut held, A).await, expected);
        }
        assert!(begun.elapsed() >= GRACE);
        let second = Instant::now();
        assert_eq!(admit(&table, &mut held, B).await, 3, "another address does not wait");
        assert!(second.elapsed() < GRACE / 2);
    }

    #[tokio::test(start_paused = true)]
    async fn no_more_exist_than_twice_the_places_before_evicted_ones_are_gone() {
        let table = ConnectionTable::new(2, Duration::ZERO);
        let mut held = Vec::new();
        for _ in 0..4 {
            held.push(table.admit(A).await);
        }
        assert!(is_evicted(&held[0]).await && is_evicted(&held[1]).await);
        assert!(!is_evicted(&held[2]).await);
        let waits = timeout(Duration::from_secs(1), table.admit(A)).await;
        assert!(waits.is_err());
        drop(held.remove(0));
        held.push(table.admit(A).await);
        drop(held);
        assert_eq!(table.places.lock().taken, 0);
        assert!(table.places.lock().by_origin.is_empty());
    }
}
