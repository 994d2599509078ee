//! Checks that the tests of every transition table share.

use alloc::format;
use alloc::string::String;
use core::fmt::{Debug, Display};

/// Checks a table against its reviewed text, so that a change of the table shows in a review. Also
/// checks that no step leads from one state to two.
pub(crate) fn check<State, Step>(table: &[(State, Step, State)], reviewed: &str)
where
    State: Display + PartialEq,
    Step: Debug + PartialEq,
{
    let written: String =
        table.iter().map(|(from, step, to)| format!("{from} --{step:?}--> {to}\n")).collect();
    assert!(
        written == reviewed,
        "the transition table changed; if that is meant, transitions.txt becomes\n{written}"
    );
    for (i, (from, step, _)) in table.iter().enumerate() {
        assert!(table[i + 1..].iter().all(|(f, s, _)| (f, s) != (from, step)), "{from} {step:?}");
    }
}
