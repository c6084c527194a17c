//! Masks, their guards, and what is pending.

use switchboard_kernel::signal::{self, Signal, SignalSet};

use super::{now, rt};

#[test]
fn sets_hold_what_was_put_in() {
    let set = SignalSet::from([Signal::INT, rt(2)]).with(Signal::HUP).without(Signal::INT);
    assert_eq!(set.iter().collect::<Vec<_>>(), [Signal::HUP, rt(2)]);
    assert_eq!(format!("{set:?}"), "{SIGHUP, SIGRTMIN+2}");
    assert_eq!(set, [rt(2), Signal::HUP].into_iter().collect());
    assert_ne!(set, SignalSet::from(Signal::HUP));
    assert!(SignalSet::default().is_empty() && !set.is_empty());
    assert_eq!(SignalSet::all().iter().count(), Signal::all().count());
}

#[test]
fn a_guard_gives_back_what_it_changed() {
    let before = signal::blocked();
    let outer = signal::block(&SignalSet::from([Signal::USR1, rt(1)])).unwrap();
    let inner = signal::block(&SignalSet::from([Signal::USR1, Signal::USR2])).unwrap();
    let open = signal::unblock(&SignalSet::from(rt(1))).unwrap();
    assert_eq!(signal::blocked(), before.with(Signal::USR1).with(Signal::USR2));
    drop(open);
    assert_eq!(signal::blocked(), before.with(Signal::USR1).with(Signal::USR2).with(rt(1)));
    drop(inner);
    assert_eq!(signal::blocked(), before.with(Signal::USR1).with(rt(1)));
    drop(outer);
    assert_eq!(signal::blocked(), before);
}

#[test]
fn a_mask_that_is_kept_stays() {
    std::thread::spawn(|| {
        let before = signal::blocked();
        signal::block(&SignalSet::from(rt(1))).unwrap().keep();
        assert_eq!(signal::blocked(), before.with(rt(1)));
        let child = std::thread::spawn(signal::blocked).join().unwrap();
        assert_eq!(child, before.with(rt(1)), "threads inherit it");
    })
    .join()
    .unwrap();
}

#[test]
fn two_signals_cannot_be_blocked() {
    let guard = signal::block(&SignalSet::all()).unwrap();
    let expected = SignalSet::all().without(Signal::KILL).without(Signal::STOP);
    assert_eq!(signal::blocked(), expected);
    drop(guard);
    assert!(!signal::blocked().contains(Signal::USR1));
}

#[test]
fn what_is_pending_can_be_asked_for() {
    let set = SignalSet::from([rt(4), rt(5)]);
    let _guard = signal::block(&set).unwrap();
    let send = |signal| {
        signal::send_thread(std::process::id(), signal::thread_id(), signal).unwrap();
    };
    send(rt(5));
    assert_eq!(signal::pending(), Ok(SignalSet::from(rt(5))));
    assert_eq!(signal::wait(&SignalSet::from(rt(4)), now()), Ok(None));
    assert_eq!(signal::wait(&set, now()).unwrap().unwrap().signal, rt(5));
    assert_eq!(signal::pending(), Ok(SignalSet::empty()));
}
