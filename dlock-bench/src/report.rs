//! stub
use crate::cli::ReportArgs;
use crate::fault::Verdict;
pub(crate) fn write(_args: &ReportArgs) -> Verdict {
    Ok(())
}
