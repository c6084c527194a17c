//! Pictures of every size, with everything open: none panics, and what matters most is on them.

use ratatui::Terminal;
use ratatui::backend::TestBackend;
use switchboard_inspect::{
    Coverage, End, Kind, Limit, Need, Object, Process, Snapshot, Target, Thread, Via, Wait, WaitOn,
};

use super::*;
use crate::command::top::rows::Key;

/// A machine with a full pipe, a writer that waits, and names in all widths of letters.
fn sample() -> Sample {
    let mut snapshot = Snapshot::default();
    let mut pipe = Object::new(Kind::Pipe, "pipe:4471");
    (pipe.fill, pipe.size) = (Some(65_536), Some(65_536));
    pipe.ends.push(End { pid: 12, via: Via::Fd(1), reads: false, writes: true });
    snapshot.objects.push(pipe);
    for id in 0..40 {
        let mut socket = Object::new(Kind::Unix, format!("unix:{id}"));
        socket.fill = Some(id);
        socket
            .add_name(format!("/run/\u{5b57}\u{5b57}{id}/e\u{301}\u{1f469}\u{200d}\u{1f469}.sock"));
        snapshot.objects.push(socket);
    }
    let wait = Wait {
        call: "write".to_owned(),
        channel: None,
        on: WaitOn::Objects(vec![Target::new("pipe:4471", Need::Room)]),
        timed: false,
        doubt: None,
        steady: Some(true),
        since_ms: Some((3_200, 20)),
    };
    let thread = Thread { tid: 12, name: "yes".to_owned(), wait: Some(wait), ..Thread::default() };
    snapshot.processes.push(Process {
        pid: 12,
        name: "yes".to_owned(),
        state: 'S',
        readable: true,
        threads: vec![thread],
        ..Process::default()
    });
    snapshot.limits.push(Limit {
        name: "System V queues".to_owned(),
        used: Some(95),
        most: 100,
        set_by: "sysctl kernel.msgmni".to_owned(),
        raise: None,
    });
    let missing = vec!["descriptors of 118 of 530 processes".to_owned()];
    snapshot.coverage = Coverage { processes: 530, readable: 412, missing, ..Coverage::default() };
    Sample::of(snapshot)
}

/// The lines of a picture of this size.
fn picture(view: &mut View, sample: Option<&Sample>, width: u16, height: u16) -> Vec<String> {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).expect("a terminal");
    let users = Users::default();
    terminal.draw(|frame| draw(frame, view, sample, &users)).expect("a picture");
    let buffer = terminal.backend().buffer();
    let cells = |y| (0..width).map(move |x| buffer.cell((x, y)).map_or("", |cell| cell.symbol()));
    (0..height).map(|y| cells(y).collect::<String>().trim_end().to_owned()).collect()
}

fn view_of(pane: Pane, sample: &Sample) -> View {
    let mut view = View::new(pane);
    view.update(sample, &Users::default());
    view
}

#[test]
fn every_size_of_everything() {
    let sample = sample();
    let sizes = (0..14_u16).flat_map(|height| (0..60).map(move |width| (width, height)));
    let sizes = sizes.chain([(80, 24), (132, 50), (200, 60), (500, 3), (3, 200), (1000, 1)]);
    for (width, height) in sizes {
        for pane in Pane::ALL {
            let mut view = view_of(pane, &sample);
            picture(&mut view, None, width, height);
            picture(&mut view, Some(&sample), width, height);
            view.select(usize::MAX);
            picture(&mut view, Some(&sample), width, height);
            view.open_selected();
            if let Some((_, scrolled)) = &mut view.open {
                *scrolled = usize::MAX;
            }
            picture(&mut view, Some(&sample), width, height);
            (view.is_help, view.is_filtering, view.is_paused) = (true, true, true);
            picture(&mut view, Some(&sample), width, height);
        }
    }
}

#[test]
fn what_is_full_comes_first_whatever_the_size() {
    let sample = sample();
    for (width, height) in [(200, 60), (80, 24), (40, 10), (30, 8), (20, 5), (24, 3), (24, 1)] {
        let mut view = view_of(Pane::Pressure, &sample);
        let lines = picture(&mut view, Some(&sample), width, height);
        let first = lines.iter().find(|line| line.contains("pipe:4471"));
        assert!(first.is_some_and(|line| line.contains("100%")), "{width}x{height}: {lines:#?}");
        let titles = lines.iter().any(|line| line.contains("FULL") && line.contains("OBJECT"));
        assert_eq!(titles, height > 2, "{width}x{height}: {lines:#?}");
    }
}

#[test]
fn a_usual_screen() {
    let sample = sample();
    let mut view = view_of(Pane::Pressure, &sample);
    let lines = picture(&mut view, Some(&sample), 110, 24);
    assert!(lines[0].starts_with(" 1 Pressure  2 Processes  3 Channels  4 Limits"), "{lines:#?}");
    assert!(lines[0].ends_with("412 of 530 processes"), "{lines:#?}");
    assert!(lines[1].starts_with("1 object has somebody blocked; 1 limit is near; 41 rows;"));
    assert!(lines[1].contains("not seen: descriptors of 118"), "{lines:#?}");
    assert!(lines[3].contains("yes[12] -> ?") && lines[3].contains("64.0K/64.0K"), "{lines:#?}");
    assert!(lines[23].starts_with("q quit"), "{lines:#?}");

    let mut view = view_of(Pane::Processes, &sample);
    let lines = picture(&mut view, Some(&sample), 120, 24);
    assert!(
        lines[3].contains("3.2s") && lines[3].contains("has waited 3.2 s to write to pipe:4471")
    );
    let mut view = view_of(Pane::Limits, &sample);
    let lines = picture(&mut view, Some(&sample), 120, 24);
    assert!(lines[3].trim_start().starts_with("95%  System V queues"), "{lines:#?}");
    let mut view = view_of(Pane::Channels, &sample);
    assert!(picture(&mut view, Some(&sample), 80, 24)[3].contains("looking..."));
}

/// What could not be seen is said in whole words, or where to read it.
#[test]
fn what_is_not_seen_is_not_cut() {
    let lacking = |missing: &[&str]| {
        let mut snapshot = (*sample().now).clone();
        snapshot.coverage.missing = missing.iter().map(|one| (*one).to_owned()).collect();
        Sample::of(snapshot)
    };
    let long = "descriptors of 118 of 530 processes: they are other users', or may not be traced";
    let sample = lacking(&[long]);
    let brief = "; not seen: descriptors of 118 of 530 processes";
    for (width, expected) in [(200, format!("; not seen: {long}")), (120, brief.to_owned())] {
        let lines = picture(&mut view_of(Pane::Pressure, &sample), Some(&sample), width, 24);
        assert!(lines[1].ends_with(&expected), "{width}: {lines:#?}");
    }
    let sample = lacking(&[long, "waits of 118 of 530 processes: they are others'"]);
    let mut view = view_of(Pane::Pressure, &sample);
    for width in [80, 100] {
        let lines = picture(&mut view, Some(&sample), width, 24);
        assert!(lines[1].ends_with("; unseen: 2, see ?; 41 rows"), "{width}: {lines:#?}");
    }
    view.is_help = true;
    let help = picture(&mut view, Some(&sample), 80, 30).join("\n");
    for part in ["Not seen:", "descriptors of 118 of 530", "  traced", "waits of 118", "quit"] {
        assert!(help.contains(part), "no {part}: {help}");
    }
}

#[test]
fn what_is_open_is_whole_and_scrolls() {
    let sample = sample();
    let mut view = view_of(Pane::Pressure, &sample);
    view.open_selected();
    let lines = picture(&mut view, Some(&sample), 80, 24);
    let all = lines.join("\n");
    for wanted in
        ["pipe:4471: anonymous pipe", "65536/65536", "Who waits:", "yes[12] has waited 3.2 s"]
    {
        assert!(all.contains(wanted), "{wanted}: {all}");
    }
    view.open = Some((Key::Process(12, 0), 0));
    let top = picture(&mut view, Some(&sample), 30, 8).join("\n");
    assert!(top.contains("yes[12]: user 0"), "{top}");
    view.open = Some((Key::Process(12, 0), usize::MAX));
    let end = picture(&mut view, Some(&sample), 30, 8).join("\n");
    assert!(!end.contains("yes[12]: user 0") && end.contains("pipe:4471"), "{end}");
    view.open = Some((Key::Object("pipe:9".to_owned()), 0));
    assert!(picture(&mut view, Some(&sample), 80, 24).join("\n").contains("pipe:9 is gone"));
}

#[test]
fn long_lines_go_on_further_in() {
    let lines = ["  one two three four".to_owned(), String::new(), "x".repeat(25)];
    let expected =
        ["  one two ", "    three ", "    four", "", "xxxxxxxxxx", "  xxxxxxxx", "  xxxxxxx"];
    assert_eq!(wrapped(&lines, 10), expected);
    assert!(wrapped(&lines, 0).is_empty());
    assert!(wrapped(&lines, 1).iter().all(|line| line.chars().count() <= 3));
}

#[test]
fn columns_that_do_not_fit_go() {
    for pane in Pane::ALL {
        let all = columns(pane);
        for room in 0..300 {
            let shown = fitting(all, room);
            let kept = all.iter().enumerate().filter(|(_, column)| column.spare == 0);
            assert!(kept.map(|(at, _)| at).all(|at| shown.iter().any(|one| one.0 == at)));
            let mut x = 0;
            for (at, width) in &shown {
                assert!(*width == 0 || x + width <= room, "{pane:?} in {room}: column {at}");
                x += width + GAP;
            }
        }
        assert_eq!(fitting(all, 300).len(), all.len());
    }
}
