//! The ends of a queue and of a topic in tasks, between processes.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use switchboard::tokio::{AsyncClient, AsyncReceiver, AsyncSender, AsyncServer, AsyncSubscriber};
use switchboard::{
    Bytes, CallError, Code, Options, Overflow, Queue, RecvError, SendError, Service, Start, Status,
    Text, Topic,
};
use switchboard_testkit::Child;
use switchboard_testkit::child::report;

use crate::conformance::contents::{contents, tag};
use crate::conformance::{Meeting, each_service};

const COUNT: u64 = 300;
const LEN: usize = 700;

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime")
}

/// Role: two services in the tasks of one thread that call each other's client.
pub(crate) fn services(arguments: &[String]) {
    let service = Service::<Text, Text>::open(&arguments[0]).expect("a service");
    runtime().block_on(async {
        let mut server = AsyncServer::new(service.server().expect("a server"));
        let mut client = AsyncClient::new(service.client().expect("a client"));
        // Its future may go from thread to thread.
        fn moves<T: Send>(_: &T) {}
        let question = Text("never".to_owned());
        let early = client.call_timeout(&question, Duration::from_millis(30));
        moves(&early);
        assert!(matches!(early.await, Err(CallError::TimedOut { .. })));
        let serving = tokio::spawn(async move {
            for n in 0..COUNT {
                let (request, ticket) = server.recv_call().await.expect("a call");
                if request.0 == "parts" {
                    for part in 0..COUNT {
                        server.send(ticket, &Text(part.to_string())).await.expect("sent");
                    }
                    server.finish(ticket).expect("finished");
                } else if request.0 == "fail" {
                    let status = Status::new(Code::NotFound, "nothing");
                    server.fail(ticket, &status).expect("failed");
                } else {
                    assert_eq!(request.0, n.to_string());
                    server.reply(ticket, &request).expect("replied");
                }
            }
        });
        {
            for n in 0..COUNT - 2 {
                let request = Text(n.to_string());
                assert_eq!(client.call(&request).await.expect("a reply"), request);
            }
            let failed = client.call(&Text("fail".into())).await;
            assert!(matches!(failed, Err(CallError::Status(s)) if s.code == Code::NotFound));
            let parts = Text("parts".into());
            let mut replies = client.call_streaming(&parts).await.expect("a call");
            let mut count = 0;
            while let Some(part) = replies.next().await.expect("a part") {
                assert_eq!(part.0, count.to_string());
                count += 1;
            }
            assert_eq!(count, COUNT);
        }
        serving.await.expect("served");
    });
    report("called");
}

#[test]
fn services_in_tasks() {
    each_service(|meeting| {
        let mut tasks = Child::role("services-of-one-thread", &[meeting.address()]);
        tasks.expect("called");
    });
}

/// Role: sends from a task, next to another task that has to get its turns.
pub(crate) fn sender(arguments: &[String]) {
    let queue = Queue::<Bytes>::open(&arguments[0]).expect("a queue");
    runtime().block_on(async {
        let mut sender = AsyncSender::new(queue.sender().expect("a sender"));
        for n in 0..COUNT {
            sender.send(&Bytes(contents(1, n, LEN, false))).await.expect("sent");
        }
        let closed = tokio::time::timeout(Duration::from_secs(20), sender.close()).await;
        closed.expect("closed in time").expect("closed");
    });
    report("closed");
}

/// Role: receives in a task, while another one counts ticks.
pub(crate) fn receiver(arguments: &[String]) {
    let queue = Queue::<Bytes>::open(&arguments[0]).expect("a queue");
    runtime().block_on(async {
        let mut receiver = AsyncReceiver::new(queue.receiver().expect("a receiver"));
        let ticking = tokio::spawn(async {
            let mut ticks = 0_u64;
            loop {
                tokio::time::sleep(Duration::from_millis(1)).await;
                ticks += 1;
                if ticks == 5 {
                    report("ticking");
                }
            }
        });
        // A wait that is given up loses nothing.
        let early = tokio::time::timeout(Duration::from_millis(30), receiver.recv()).await;
        assert!(early.is_err(), "{early:?}");
        report("waiting");
        for n in 0..COUNT {
            let delivery = receiver.recv().await.expect("a message");
            let bytes = receiver.acknowledge(delivery).expect("acknowledged");
            assert_eq!(tag(&bytes), Some((1, n)));
            assert!(bytes.0 == contents(1, n, LEN, false), "message {n}");
        }
        report("all");
        let after = tokio::time::timeout(Duration::from_millis(200), receiver.recv()).await;
        match after {
            Ok(Err(RecvError::Ended)) => report("ended"),
            Err(_) => report("nothing more"),
            Ok(other) => panic!("{other:?}"),
        }
        ticking.abort();
    });
}

/// Role: both ends in tasks of one thread. A drop that waited would keep the other end from answering.
pub(crate) fn one_thread(arguments: &[String]) {
    let queue = Queue::<Bytes>::open(&arguments[0]).expect("a queue");
    runtime().block_on(async {
        for wait in [true, false] {
            let mut receiver = AsyncReceiver::new(queue.receiver().expect("a receiver"));
            let acknowledged = Arc::new(AtomicBool::new(false));
            let told = acknowledged.clone();
            let receiving = tokio::spawn(async move {
                let delivery = receiver.recv().await.expect("a message");
                receiver.acknowledge(delivery).expect("acknowledged");
                told.store(true, Ordering::Relaxed);
                receiver.recv().await
            });
            let mut sender = AsyncSender::new(queue.sender().expect("a sender"));
            sender.send(&Bytes(contents(1, 0, LEN, false))).await.expect("sent");
            while wait && !acknowledged.load(Ordering::Relaxed) {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            drop(sender);
            report("dropped");
            let error = receiving.await.expect("a task").expect_err("nothing more");
            report(format!("{error:?}"));
        }
    });
}

/// Role: publishes from a task, more than its subscriber takes at first.
pub(crate) fn publisher(arguments: &[String]) {
    let overflow = Overflow::parse(&arguments[1]).expect("a policy");
    let options = Options::default().overflow(overflow).capacity_bytes(Some(100_000)).history(1);
    let topic = Topic::<Bytes>::open_with(&arguments[0], options).expect("a topic");
    runtime().block_on(async {
        let mut publisher = topic.publisher().expect("a publisher");
        report("open");
        publisher.wait_for_peers(1, Some(switchboard_testkit::DEADLINE)).expect("a subscriber");
        let mut publisher = AsyncSender::new(publisher);
        for n in 0..COUNT {
            match publisher.send(&Bytes(contents(1, n, 10 * LEN, false))).await {
                Ok(()) => {}
                Err(SendError::Slow { peer }) => {
                    assert!(peer.starts_with("process "), "{peer}");
                    return report(format!("slow {n}"));
                }
                Err(error) => panic!("{error}"),
            }
        }
        let closed = tokio::time::timeout(Duration::from_secs(20), publisher.close()).await;
        closed.expect("closed in time").expect("closed");
        report("closed");
    });
}

/// Role: subscribes in a task; takes a message, and the others when it is told to.
pub(crate) fn subscriber(arguments: &[String]) {
    let topic = Topic::<Bytes>::open(&arguments[0]).expect("a topic");
    runtime().block_on(async {
        let subscriber = topic.subscriber(Start::New).expect("a subscriber");
        let mut subscriber = AsyncSubscriber::new(subscriber);
        let early = tokio::time::timeout(Duration::from_millis(30), subscriber.recv()).await;
        let mut next = match early {
            Err(_) => subscriber.recv().await,
            Ok(result) => result,
        };
        let (mut taken, mut gaps) = (0, 0);
        let end = loop {
            match next {
                Ok(sample) => {
                    let (_, n) = tag(&sample.message).expect("a tag");
                    assert_eq!(sample.number, n + 1);
                    assert!(sample.message.0 == contents(1, n, 10 * LEN, false), "message {n}");
                    taken += 1;
                    if taken == 1 {
                        report("first");
                        let _ = switchboard_testkit::child::instruction();
                    }
                }
                Err(RecvError::Gap { missing, .. }) => gaps += missing,
                Err(error) => break error,
            }
            next = subscriber.recv().await;
        };
        report(format!("{taken} of {} {}", taken + gaps, format!("{end:?}").starts_with("Ended")));
    });
}

#[test]
fn tasks_publish_and_subscribe_between_processes() {
    for overflow in ["block", "drop-oldest", "fail"] {
        let meeting = Meeting::of("unix");
        let mut publisher = Child::role("async-publisher", &[meeting.address(), overflow]);
        publisher.expect("open");
        let mut subscriber = Child::role("async-subscriber", &[meeting.address()]);
        subscriber.expect("first");
        match overflow {
            "block" => {
                let early = publisher.line_within(Duration::from_millis(100));
                assert_eq!(early, None, "2 MB do not fit");
                subscriber.tell("go on");
                publisher.expect("closed");
                subscriber.expect(&format!("{COUNT} of {COUNT} true"));
            }
            "drop-oldest" => {
                // It waits for nobody, and for the end only as long as something is taken.
                publisher.expect("closed");
                subscriber.tell("go on");
                let line = subscriber.line().expect("a count");
                assert!(!line.starts_with(&format!("{COUNT} of")), "{line}");
            }
            _ => {
                let line = publisher.line().expect("a number");
                assert!(line.starts_with("slow "), "{line}");
            }
        }
    }
}

#[test]
fn a_sender_is_dropped_in_the_thread_of_its_receiver() {
    let meeting = Meeting::of("unix");
    let mut child = Child::role("tasks-of-one-thread", &[meeting.address()]);
    child.expect("dropped");
    child.expect("Ended");
    // What was not acknowledged when it was dropped cannot be told from a death.
    child.expect("dropped");
    let answer = child.line().expect("an answer");
    assert!(answer.starts_with("PeerDied") || answer == "Ended", "{answer}");
    assert!(child.wait().success());
}

#[test]
fn tasks_send_and_receive_between_processes() {
    for (scheme, end) in [("unix", "ended"), ("mq", "nothing more")] {
        let meeting = Meeting::of(scheme);
        let mut receiver = Child::role("async-receiver", &[meeting.address()]);
        // The two tasks take turns; on a loaded machine either may be the first to say something.
        let mut both = [receiver.line(), receiver.line()].map(Option::unwrap_or_default);
        both.sort();
        assert_eq!(both, ["ticking", "waiting"], "{scheme}");
        let mut sender = Child::role("async-sender", &[meeting.address()]);
        receiver.expect("all");
        receiver.expect(end);
        sender.expect("closed");
        assert!(sender.wait().success() && receiver.wait().success(), "{scheme}");
    }
}

#[test]
fn a_task_and_a_thread_are_each_others_other_side() {
    let mut meeting = Meeting::of("unix");
    let mut receiver = meeting.receiver("");
    let mut sender = Child::role("async-sender", &[meeting.address()]);
    let haul = receiver.recv(COUNT);
    assert!(haul.of(1).into_iter().eq(0..COUNT), "{haul:?}");
    receiver.must("timeout 15000", "error Ended");
    sender.expect("closed");
}
