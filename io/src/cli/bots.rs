//! `skirmish bots`.

use clap::Args;

use super::Failure;
use crate::bots::{self, Options};

/// Drive many players through the real client, and check what they see.
#[derive(Debug, Args)]
pub(super) struct Bots {
    #[command(flatten)]
    options: Options,
}

impl Bots {
    #[allow(clippy::print_stdout, reason = "the report is what the command is for")]
    pub(super) fn run(self) -> Result<(), Failure> {
        let json = self.options.json;
        let report = bots::run(self.options).map_err(|error| match error {
            bots::Error::Option { .. } => Failure::Usage(error.to_string()),
            _ => Failure::Failed(error.to_string()),
        })?;
        if json {
            println!("{}", report.to_json());
        } else {
            println!("{report}");
        }
        if report.held() { Ok(()) } else { Err(Failure::Failed("not everything held".to_owned())) }
    }
}
