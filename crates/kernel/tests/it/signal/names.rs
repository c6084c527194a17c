//! Names and numbers of signals.

use switchboard_kernel::signal::{Signal, UnknownSignal};

use super::rt;

#[test]
fn names_are_parsed_and_printed() {
    let check = |text: &str, signal: Signal, printed: &str| {
        assert_eq!(text.parse(), Ok(signal), "{text}");
        assert_eq!(signal.to_string(), printed);
        assert_eq!(printed.parse(), Ok(signal), "{printed}");
    };
    check("SIGTERM", Signal::TERM, "SIGTERM");
    check("TERM", Signal::TERM, "SIGTERM");
    check("sigterm", Signal::TERM, "SIGTERM");
    check("15", Signal::TERM, "SIGTERM");
    check("9", Signal::KILL, "SIGKILL");
    check("ABRT", Signal::ABORT, "SIGABRT");
    check("SIGIOT", Signal::ABORT, "SIGABRT");
    check("SIGPOLL", Signal::IO, "SIGIO");
    check("CLD", Signal::CHILD, "SIGCHLD");
    check("SIGRTMIN", rt(0), "SIGRTMIN");
    check("RTMIN+0", rt(0), "SIGRTMIN");
    check("SIGRTMIN+1", rt(1), "SIGRTMIN+1");
    check("rtmin+10", rt(10), "SIGRTMIN+10");
    let last = rt(0).number() + 30;
    check("SIGRTMAX", rt(30), "SIGRTMIN+30");
    check("SIGRTMAX-1", rt(29), "SIGRTMIN+29");
    check(&last.to_string(), rt(30), "SIGRTMIN+30");
}

#[test]
fn what_is_no_signal_is_refused() {
    let texts = [
        "",
        "0",
        "-1",
        "+15",
        "32",
        "33",
        "65",
        "128",
        "99999999999",
        "SIG",
        "SIGSIGTERM",
        "TERM ",
        "SIG15",
        "SIGTER",
        "SIGRTMIN-1",
        "SIGRTMIN+31",
        "SIGRTMIN+",
        "SIGRTMIN++1",
        "SIGRTMIN+x",
        "SIGRTMAX+1",
        "SIGRTMAX-31",
        "RTMIN1",
        "RT",
        "SIGRTMIN+99999999999",
        "SIGTÉRM",
    ];
    for text in texts {
        assert_eq!(text.parse::<Signal>(), Err(UnknownSignal), "{text:?}");
    }
    for number in [i32::MIN, -1, 0, 32, 33, 65, i32::MAX] {
        assert_eq!(Signal::from_number(number), None, "{number}");
    }
    assert_eq!(Signal::real_time(31), None);
    assert_eq!(Signal::real_time(u32::MAX), None);
    assert!(UnknownSignal.to_string().contains("SIGRTMIN+30"));
}

#[test]
fn every_signal_has_a_name_of_its_own() {
    let mut names = std::collections::BTreeSet::new();
    for signal in Signal::all() {
        let name = signal.to_string();
        assert!(name.starts_with("SIG") && names.insert(name), "{}", signal.number());
        assert_eq!(signal.is_real_time(), signal >= rt(0));
    }
    assert_eq!(names.len(), 31 + 31);
}
