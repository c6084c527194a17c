//! Changes are made one by one, and who waits for one hears of it.

use zerocopy::{FromBytes, Immutable, IntoBytes};

use super::{Arc, Bounds, explore, join, threads};
use crate::sync::Shared;
use crate::sync::monitor::Monitor;

#[derive(Debug, FromBytes, IntoBytes, Immutable)]
#[repr(C)]
pub(super) struct Account {
    left: u32,
    right: u32,
}

pub(super) fn account() -> Arc<Monitor<Account>> {
    Arc::new(Monitor::anonymous(Account { left: 0, right: 0 }).expect("a monitor"))
}

pub(super) fn add(account: &Monitor<Account>) {
    account
        .with(|account| {
            assert_eq!(account.left, account.right, "half a change");
            account.left += 1;
            account.right += 1;
            account.notify_all()
        })
        .and_then(|notified| notified)
        .expect("a change");
}

#[test]
fn changes_add_up() {
    explore("monitor, 3 change", Bounds { quick: 2, all: Some(4) }, || {
        let shared = account();
        let other = Arc::clone(&shared);
        let adding = threads(2, move || add(&other));
        add(&shared);
        join(adding);
        assert_eq!(shared.with(|account| account.left).expect("the value"), 3);
    });
}

#[test]
fn who_waits_hears_of_it() {
    explore("monitor, 1 waits, 1 changes", Bounds { quick: 3, all: Some(5) }, || {
        let shared = account();
        let waiter = Arc::clone(&shared);
        let waiting = threads(1, move || {
            let taken = waiter.with(|account| {
                account.wait_while(|account| account.left == 0)?;
                account.left -= 1;
                account.right -= 1;
                Ok::<_, switchboard_kernel::Error>(())
            });
            taken.and_then(|taken| taken).expect("a change");
        });
        add(&shared);
        join(waiting);
        assert_eq!(shared.with(|account| account.right).expect("the value"), 0);
    });
}
