//! Which objects are each other's other end: sockets by their addresses, the sides of pseudo-terminals, connections that nobody has accepted.
//!
//! Source: docs/design/inspect.md, "Kinds and identities".

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};

use super::{Join, Key, master};
use crate::kind::Kind;

/// The detail of a socket whose peer was found by addresses alone.
pub(crate) const ELSEWHERE: &str = "peer found";

impl Join {
    /// Connects sockets with their peers.
    pub(crate) fn peers(&mut self) {
        let mut by_place = HashMap::new();
        let mut unconnected = HashMap::new();
        for one in &self.inet {
            let s = &one.socket;
            let key = (one.net, one.protocol, canonical(s.local), canonical(s.remote));
            by_place.insert(key, one.at);
            if one.protocol == Kind::Udp && s.remote.port() == 0 {
                unconnected.insert((one.net, canonical(s.local)), one.at);
            }
        }
        let mut found = Vec::new();
        for one in &self.inet {
            let s = &one.socket;
            if s.is_listening() || s.remote.port() == 0 {
                continue;
            }
            let (local, remote) = (canonical(s.local), canonical(s.remote));
            let key = (one.net, one.protocol, remote, local);
            let connected = by_place.get(&key).copied();
            // Who takes datagrams from anybody is connected to nobody.
            let bound = || {
                let here = remote.0.is_loopback() || remote.0 == local.0;
                let anywhere = [IpAddr::from([0; 4]), IpAddr::from([0_u16; 8])];
                let mut places = vec![remote.0];
                places.extend(anywhere.into_iter().filter(|_| here));
                places.into_iter().find_map(|ip| {
                    let any = unconnected.get(&(one.net, (ip, remote.1)));
                    any.copied()
                })
            };
            let is_udp = one.protocol == Kind::Udp;
            let peer = connected.or_else(|| is_udp.then(bound).flatten());
            if let Some(peer) = peer.filter(|&peer| peer != one.at) {
                found.push((one.at, peer));
            }
        }
        for (at, peer) in found {
            self.objects[at].peer = Some(self.objects[peer].id.clone());
        }
        self.peers_elsewhere();
        if self.kinds.has(Kind::Pty) {
            self.terminals();
        }
        self.accepted_by();
    }

    /// Connects sockets whose peer is in another network namespace, as containers' are: by the same two addresses the other way round,
    /// where exactly one socket of the machine has them. Addresses mean something in one namespace only, so it may be another machine's.
    fn peers_elsewhere(&mut self) {
        type Place = (IpAddr, u16);
        type Ends = Vec<(usize, Option<u64>)>;
        let mut by_place: HashMap<(Kind, Place, Place), Ends> = HashMap::new();
        for one in &self.inet {
            let (local, remote) = (canonical(one.socket.local), canonical(one.socket.remote));
            // Who listens, or is connected to nobody, is nobody's other end; nor do loopback addresses leave a namespace.
            if remote.1 != 0 && !local.0.is_loopback() && !remote.0.is_loopback() {
                by_place.entry((one.protocol, local, remote)).or_default().push((one.at, one.net));
            }
        }
        for (&(protocol, local, remote), here) in &by_place {
            let there = by_place.get(&(protocol, remote, local)).map(Vec::as_slice);
            let (&[(at, net)], Some(&[(peer, its_net)])) = (here.as_slice(), there) else {
                continue;
            };
            if net != its_net && self.objects[at].peer.is_none() {
                self.objects[at].peer = Some(self.objects[peer].id.clone());
                self.objects[at]
                    .details
                    .insert(ELSEWHERE, "by its addresses, in another namespace");
            }
        }
    }

    /// Connects the two sides of each pseudo-terminal.
    fn terminals(&mut self) {
        let numbers = self.known.iter().filter_map(|(key, &at)| match key {
            Key::Number(Kind::Pty, number) => Some((u32::try_from(*number).ok()?, at)),
            _ => None,
        });
        for (number, slave) in numbers.collect::<Vec<_>>() {
            if let Some(master) = self.find(&master(number)) {
                self.objects[slave].peer = Some(self.objects[master].id.clone());
                self.objects[master].peer = Some(self.objects[slave].id.clone());
            }
        }
    }

    /// A connection that nobody has accepted is in the hands of those who listen.
    fn accepted_by(&mut self) {
        let mut listeners = HashMap::new();
        for one in self.inet.iter().filter(|one| one.socket.is_listening()) {
            listeners.insert((one.net, one.socket.local.port()), one.at);
        }
        let mut waiting = Vec::new();
        for one in self.inet.iter().filter(|one| one.protocol == Kind::Tcp) {
            let s = &one.socket;
            let unaccepted = s.inode == 0 && matches!(s.state, 1 | 8);
            if unaccepted && let Some(&listener) = listeners.get(&(one.net, s.local.port())) {
                waiting.push((one.at, listener));
            }
        }
        for (&inode, &listener) in &self.pending {
            if let Some(&client) = self.sockets.get(&inode) {
                let peer = self.objects[client].peer.as_deref();
                let peer = peer.and_then(|peer| peer.strip_prefix("unix:")?.parse::<u64>().ok());
                if let Some(&peer) = peer.and_then(|peer| self.sockets.get(&peer)) {
                    waiting.push((peer, listener));
                } else {
                    // Its peer is in no table: the listener stands for it.
                    self.objects[client].peer = Some(self.objects[listener].id.clone());
                    self.objects[client].state = Some("not yet accepted".into());
                }
            }
        }
        for (at, listener) in waiting {
            let id = self.objects[listener].id.clone();
            self.objects[at].state = Some("to be accepted".into());
            self.objects[at].details.insert("listener", id);
        }
    }
}

/// An address so that IPv4 in IPv6 is IPv4.
fn canonical(place: SocketAddr) -> (IpAddr, u16) {
    (place.ip().to_canonical(), place.port())
}
