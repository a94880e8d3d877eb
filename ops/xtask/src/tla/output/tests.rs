//! The reader of TLC's output, on outputs of TLC 2.15 as they were recorded.

use super::*;

const PASSED: &str = include_str!("recorded/passed.txt");
const INVARIANT: &str = include_str!("recorded/invariant.txt");
const INITIAL: &str = include_str!("recorded/initial.txt");
const ACTION: &str = include_str!("recorded/action.txt");
const STUTTERS: &str = include_str!("recorded/stutters.txt");
const LOOPS: &str = include_str!("recorded/loops.txt");
const SIMULATED: &str = include_str!("recorded/simulated.txt");
const SIMULATED_INVARIANT: &str = include_str!("recorded/simulated_invariant.txt");
const UNKNOWN_OPERATOR: &str = include_str!("recorded/unknown_operator.txt");
const UNKNOWN_INVARIANT: &str = include_str!("recorded/unknown_invariant.txt");
const NOT_EVALUATED: &str = include_str!("recorded/not_evaluated.txt");

/// Goal: how a run ended is read from each kind of output.
#[test]
fn endings() {
    let cases = [
        (PASSED, Ending::Passed),
        (INVARIANT, Ending::Invariant("Two".to_owned())),
        (INITIAL, Ending::Invariant("Bad".to_owned())),
        (ACTION, Ending::Action("Grows".to_owned())),
        (STUTTERS, Ending::Temporal),
        (LOOPS, Ending::Temporal),
        (SIMULATED, Ending::Passed),
        (SIMULATED_INVARIANT, Ending::Invariant("Two".to_owned())),
    ];
    for (text, ending) in cases {
        assert_eq!(read(text).ending, ending);
    }
}

/// Goal: a module that cannot be read or evaluated is an error that says where.
#[test]
fn errors_say_where() {
    for (text, what) in [
        (UNKNOWN_OPERATOR, "Unknown operator: `Appnd'"),
        (UNKNOWN_INVARIANT, "The invariant Nope"),
        (NOT_EVALUATED, "Evaluating invariant Odd failed"),
        ("Error: no memory", "no memory"),
    ] {
        let Ending::Error(said) = read(text).ending else { panic!("{what}: no error") };
        assert!(said.contains(what), "{what}: {said}");
    }
}

/// Goal: output that was cut off never counts as passed.
/// Method: a good output ends before each of its lines, up to the line that says that all is well.
#[test]
fn half_an_output_is_an_error() {
    for text in [PASSED, SIMULATED] {
        let end = if text == PASSED { "STARTMSG 2193" } else { "STARTMSG 2186" };
        let end = text.find(end).unwrap();
        for (cut, _) in text[..end].match_indices('\n') {
            assert!(matches!(read(&text[..cut]).ending, Ending::Error(_)), "cut at {cut}");
        }
    }
}

/// Goal: the figures of the table are TLC's.
#[test]
fn figures() {
    let output = read(PASSED);
    assert_eq!((output.states, output.depth), (Some(15), Some(6)));
    let output = read(INVARIANT);
    assert_eq!((output.states, output.depth), (Some(6), Some(3)));
    assert_eq!(read(SIMULATED).states, Some(720));
}

/// Goal: steps have their names and places, and states all their variables.
#[test]
fn steps() {
    let output = read(INVARIANT);
    assert_eq!(output.trace.len(), 3);
    assert_eq!(output.trace[0].step, None);
    let (name, span) = output.trace[1].step.clone().unwrap();
    assert_eq!((name.as_str(), span.module.as_str()), ("Up", "A"));
    assert_eq!((span.line, span.column, span.last_line, span.last_column), (7, 10, 7, 71));
    let names: Vec<&str> = output.trace[2].variables.iter().map(|(it, _)| it.as_str()).collect();
    assert_eq!(names, ["x", "y"]);
    assert_eq!(output.trace[2].variables[0].1, Value::Atom("4".to_owned()));
    assert_eq!(read(INITIAL).trace.len(), 1);
}

/// Goal: an endless counterexample says how it goes on.
#[test]
fn tails() {
    assert_eq!(read(INVARIANT).tail, Tail::Ends);
    assert_eq!(read(STUTTERS).tail, Tail::Stutters);
    assert_eq!(read(LOOPS).tail, Tail::BackTo(1));
}
