//! Who may do what on a channel: rules, as an address gives them, and who a peer is, as the kernel says.
//!
//! Source: docs/design/access.md; `unix(7)`, `socket(7)` (`SO_PEERCRED`, `SO_PEERGROUPS`), `user_namespaces(7)`.

mod audit;

pub(crate) use audit::{Audit, AuditTarget, Record};

use std::fmt;
use std::os::fd::AsFd;

use switchboard_kernel::{process, unix_socket};

use crate::link::Pattern;

/// What an end does on its channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verb {
    Publish,
    Subscribe,
    Send,
    Receive,
    Call,
    Serve,
    Notify,
    Wait,
    Set,
    Get,
}

impl Verb {
    /// Those that an address can name.
    pub(crate) const ALL: [Self; 6] =
        [Self::Publish, Self::Subscribe, Self::Send, Self::Receive, Self::Call, Self::Serve];

    /// What an end does that writes, or reads: a service's client writes.
    pub(crate) fn of(pattern: Pattern, writes: bool) -> Self {
        match (pattern, writes) {
            (Pattern::Topic, true) => Self::Publish,
            (Pattern::Topic, false) => Self::Subscribe,
            (Pattern::Queue, true) => Self::Send,
            (Pattern::Queue, false) => Self::Receive,
            // Answers go the other way.
            (Pattern::Service, true) | (Pattern::Answers, false) => Self::Call,
            (Pattern::Service, false) | (Pattern::Answers, true) => Self::Serve,
            (Pattern::Event, true) => Self::Notify,
            (Pattern::Event, false) => Self::Wait,
            (Pattern::State, true) => Self::Set,
            (Pattern::State, false) => Self::Get,
        }
    }

    /// As an option of an address.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Publish => "publish",
            Self::Subscribe => "subscribe",
            Self::Send => "send",
            Self::Receive => "receive",
            Self::Call => "call",
            Self::Serve => "serve",
            Self::Notify => "notify",
            Self::Wait => "wait",
            Self::Set => "set",
            Self::Get => "get",
        }
    }

    /// Of an option.
    pub(crate) fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|verb| verb.name() == name)
    }

    /// The bits of a mode that allow it.
    fn bits(self) -> u32 {
        match self {
            Self::Subscribe | Self::Receive | Self::Wait | Self::Get => 4,
            Self::Publish | Self::Send | Self::Notify | Self::Set => 2,
            Self::Call | Self::Serve => 6,
        }
    }
}

/// Whom a rule allows something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Who {
    User(u32),
    Group(u32),
    Any,
}

impl Who {
    /// `user:NAME`, `group:NAME` or `any`, several with commas.
    ///
    /// # Errors
    /// What is wrong.
    pub(crate) fn parse(text: &str) -> Result<Vec<Self>, String> {
        text.split(',').map(Self::parse_one).collect()
    }

    fn parse_one(text: &str) -> Result<Self, String> {
        match text.split_once(':') {
            None if text == "any" => Ok(Self::Any),
            Some(("user", name)) => process::user_id_of_name(name)
                .map(Self::User)
                .map_err(|_| format!("there is no user {name}")),
            Some(("group", name)) => process::group_id_of_name(name)
                .map(Self::Group)
                .map_err(|_| format!("there is no group {name}")),
            _ => Err("write it as user:NAME, group:NAME or any, several with commas".into()),
        }
    }
}

/// Most rules of an address: it is at most 8 KiB long.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Rules {
    given: Vec<(Verb, Who)>,
    mode: u32,
    group: Option<u32>,
}

impl Rules {
    pub(crate) fn add(&mut self, verb: Verb, who: Vec<Who>) {
        self.given.extend(who.into_iter().map(|who| (verb, who)));
    }

    /// With what a mode and a group allow.
    pub(crate) fn with_mode(mut self, mode: Option<u32>, group: Option<u32>) -> Self {
        self.mode = mode.unwrap_or(0o600);
        self.group = group;
        self
    }

    /// The options by which an address lets others in, or means to: the first of them.
    pub(crate) fn first_option(&self) -> Option<&'static str> {
        let given = self.given.first().map(|(verb, _)| verb.name());
        given.or((self.mode & 0o077 != 0).then_some("mode")).or(self.group.map(|_| "group"))
    }

    /// Whether anybody of another user is allowed anything.
    pub(crate) fn let_others_in(&self) -> bool {
        !self.given.is_empty() || self.by_mode_for_any() || self.by_mode_for_group().is_some()
    }

    fn by_mode_for_any(&self) -> bool {
        self.mode & 0o006 != 0
    }

    fn by_mode_for_group(&self) -> Option<u32> {
        self.group.filter(|_| self.mode & 0o060 != 0)
    }

    /// The mode of a channel's folder, and its group, so that who is allowed something can reach it.
    pub(crate) fn of_folder(&self) -> (u32, Option<u32>) {
        if !self.let_others_in() {
            return (0o700, self.group);
        }
        let mut groups: Vec<Option<u32>> = self.given.iter().map(|(_, who)| who.group()).collect();
        groups.extend(self.by_mode_for_group().map(Some));
        groups.extend(self.by_mode_for_any().then_some(None));
        match groups[..] {
            [Some(first), ..] if groups.iter().all(|group| *group == Some(first)) => {
                (0o1770, Some(first))
            }
            _ => (0o1777, self.group),
        }
    }

    /// Whether a process of another user is allowed something.
    pub(crate) fn allow(&self, verb: Verb, identity: &Identity) -> bool {
        let bits = verb.bits();
        (self.mode & bits == bits)
            || (self.mode >> 3 & bits == bits
                && self.group.is_some_and(|group| identity.is_in(group)))
            || self.given.iter().any(|(of, who)| {
                *of == verb
                    && match who {
                        Who::Any => true,
                        Who::User(uid) => identity.is_user(*uid),
                        Who::Group(gid) => identity.is_in(*gid),
                    }
            })
    }
}

impl Who {
    fn group(self) -> Option<u32> {
        match self {
            Self::Group(group) => Some(group),
            Self::User(_) | Self::Any => None,
        }
    }
}

/// Stands for all users and groups that a user namespace does not know.
const UNKNOWN: u32 = 65_534;

/// A process of another user, or one that may be: as it was when it connected, or began to listen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Identity {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    /// All of its groups, that one too.
    pub(crate) groups: Vec<u32>,
    /// Whether the numbers stand for one user or group each.
    certain: bool,
}

impl Identity {
    /// Of the peer of a connection with these credentials.
    pub(crate) fn of(socket: impl AsFd, uid: u32, gid: u32) -> Self {
        let mut groups = unix_socket::peer_groups(socket).unwrap_or_default();
        if !groups.contains(&gid) {
            groups.push(gid);
        }
        Self { uid, gid, groups, certain: knows_everybody() }
    }

    /// Whether it is of this process's user.
    pub(crate) fn is_mine(&self) -> bool {
        self.is_user(process::effective_user_id())
    }

    /// Whether a rule can name its user: this user namespace has a number for it.
    pub(crate) fn can_be_named(&self) -> bool {
        self.certain || self.uid != UNKNOWN
    }

    fn is_user(&self, uid: u32) -> bool {
        self.uid == uid && (self.certain || uid != UNKNOWN)
    }

    fn is_in(&self, gid: u32) -> bool {
        self.groups.contains(&gid) && (self.certain || gid != UNKNOWN)
    }
}

/// `user bob (1001), groups 1001, 4`.
impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match process::user_name_of_id(self.uid) {
            Some(name) => write!(f, "user {name} ({})", self.uid)?,
            None => write!(f, "user {}", self.uid)?,
        }
        const MOST: usize = 8;
        let groups: Vec<String> = self.groups.iter().take(MOST).map(u32::to_string).collect();
        let more = if self.groups.len() > MOST { ", …" } else { "" };
        write!(f, ", groups {}{more}", groups.join(", "))
    }
}

/// Whether this user namespace has a number for each user and group there is: then [`UNKNOWN`] is one of them.
fn knows_everybody() -> bool {
    let whole = |file: &str| {
        std::fs::read_to_string(file)
            .is_ok_and(|text| text.split_ascii_whitespace().eq(["0", "0", "4294967295"]))
    };
    whole("/proc/self/uid_map") && whole("/proc/self/gid_map")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity(uid: u32, groups: &[u32]) -> Identity {
        Identity { uid, gid: groups[0], groups: groups.to_vec(), certain: true }
    }

    fn rules(mode: u32, group: Option<u32>, given: &[(Verb, &str)]) -> Rules {
        let mut rules = Rules::default().with_mode(Some(mode), group);
        for (verb, who) in given {
            rules.add(*verb, Who::parse(who).expect("somebody"));
        }
        rules
    }

    fn allowed(rules: &Rules, identity: &Identity) -> Vec<&'static str> {
        let verbs = Verb::ALL.into_iter().filter(|verb| rules.allow(*verb, identity));
        verbs.map(Verb::name).collect()
    }

    const ALL: [&str; 6] = ["publish", "subscribe", "send", "receive", "call", "serve"];

    #[test]
    fn nothing_is_allowed_but_what_a_rule_says() {
        let bob = identity(1001, &[1001, 50]);
        let check = |mode, group, given: &[(Verb, &str)], expected: &[&str]| {
            let rules = rules(mode, group, given);
            assert_eq!(allowed(&rules, &bob), expected, "{mode:o} {group:?} {given:?}");
            let (of_folder, _) = rules.of_folder();
            assert!(expected.is_empty() || of_folder & 0o070 != 0);
        };
        check(0o600, None, &[], &[]);
        check(0o600, Some(50), &[], &[]);
        check(0o660, None, &[], &[]);
        check(0o660, Some(51), &[], &[]);
        check(0o660, Some(50), &[], &ALL);
        check(0o640, Some(50), &[], &["subscribe", "receive"]);
        check(0o620, Some(50), &[], &["publish", "send"]);
        check(0o604, None, &[], &["subscribe", "receive"]);
        check(0o666, None, &[], &ALL);
        check(0o600, None, &[(Verb::Publish, "user:1001")], &["publish"]);
        check(0o600, None, &[(Verb::Publish, "user:1002,user:0")], &[]);
        check(0o600, None, &[(Verb::Call, "group:50"), (Verb::Serve, "any")], &["call", "serve"]);
        check(0o600, None, &[(Verb::Receive, "group:51,user:1002,any")], &["receive"]);
    }

    #[test]
    fn root_is_nobody_special() {
        let root = identity(0, &[0]);
        assert_eq!(allowed(&rules(0o660, Some(50), &[]), &root), [""; 0]);
        assert_eq!(allowed(&rules(0o600, None, &[(Verb::Send, "user:root")]), &root), ["send"]);
    }

    #[test]
    fn an_unknown_user_is_nobody() {
        let unknown = Identity { certain: false, ..identity(UNKNOWN, &[UNKNOWN]) };
        let named = rules(0o660, Some(UNKNOWN), &[(Verb::Send, "user:65534")]);
        assert_eq!(allowed(&named, &unknown), [""; 0]);
        assert_eq!(allowed(&named, &identity(UNKNOWN, &[UNKNOWN])), ALL);
        assert_eq!(allowed(&rules(0o600, None, &[(Verb::Send, "any")]), &unknown), ["send"]);
        assert!(!unknown.is_mine());
    }

    #[test]
    fn the_folder_is_as_open_as_it_must_be() {
        let check = |rules: Rules, expected| assert_eq!(rules.of_folder(), expected, "{rules:?}");
        check(rules(0o600, None, &[]), (0o700, None));
        check(rules(0o660, Some(5), &[]), (0o1770, Some(5)));
        check(rules(0o666, Some(5), &[]), (0o1777, Some(5)));
        check(rules(0o600, None, &[(Verb::Send, "group:7")]), (0o1770, Some(7)));
        check(rules(0o660, Some(5), &[(Verb::Send, "group:7")]), (0o1777, Some(5)));
        check(rules(0o600, None, &[(Verb::Send, "user:7")]), (0o1777, None));
    }

    #[test]
    fn whoever_is_not_there_is_an_error() {
        for wrong in ["", "bob", "user:", "group:", "user:no-such-user", "any,", "root:0", "user"] {
            assert!(Who::parse(wrong).is_err(), "{wrong}");
        }
        assert_eq!(
            Who::parse("user:0,group:0,any"),
            Ok(vec![Who::User(0), Who::Group(0), Who::Any])
        );
    }
}
