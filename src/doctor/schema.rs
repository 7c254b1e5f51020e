//! Findings about the schema and what the role may do with it.

use anyhow::Result;

use super::{Finding, Verdict};
use crate::store::health::diagnosis::Diagnosis;

/// Version of the schema, migrations that have not ended, rights.
pub(super) async fn findings(diagnosis: &mut Diagnosis) -> Result<Vec<Finding>> {
    let (applied, needed) = diagnosis.schema().await?;
    let mut findings = vec![version(applied, needed)];
    if let Some(versions) = diagnosis.half_applied().await? {
        findings.push(half_applied(&versions));
    }
    findings.push(rights(&diagnosis.missing_rights().await?));
    findings.push(Finding::new(
        diagnosis.may_emit_messages().await?,
        Verdict::Bad,
        "this role may run pg_logical_emit_message",
        "GRANT EXECUTE ON FUNCTION pg_logical_emit_message(boolean, text, text) to the role: large sends need it",
    ));
    Ok(findings)
}

fn version(applied: Option<i64>, needed: i64) -> Finding {
    let Some(applied) = applied else {
        // The service starts all the same: it cannot look either.
        return Finding::new(
            false,
            Verdict::Warning,
            "this role may not read the version of the schema",
            "run dms doctor as the role that migrated, or GRANT SELECT ON dms_migrations (in the schema of --schema)",
        );
    };
    Finding::new(
        applied >= needed,
        Verdict::Bad,
        format!("the schema is at version {applied}, this program needs {needed}"),
        "run dms migrate",
    )
}

fn half_applied(versions: &[i64]) -> Finding {
    let what = if versions.is_empty() {
        "no migration has stopped half way".to_owned()
    } else {
        let versions: Vec<_> = versions.iter().map(i64::to_string).collect();
        format!("half applied: migration {}", versions.join(", "))
    };
    Finding::new(
        versions.is_empty(),
        Verdict::Bad,
        what,
        "undo by hand what it has done (migrations/), remove its row from dms_migrations, then dms migrate, which refuses \
         until then",
    )
}

fn rights(missing: &[String]) -> Finding {
    let what = if missing.is_empty() {
        "this role has the rights that the service needs".to_owned()
    } else {
        format!("this role lacks {}", missing.join(", "))
    };
    Finding::new(
        missing.is_empty(),
        Verdict::Bad,
        what,
        "run the service as the role that migrated, or as a member of it, for it makes and drops partitions",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_schema_that_is_old_or_half_applied_is_bad() {
        assert_eq!(
            [Some(2), Some(3), Some(1), None].map(|applied| version(applied, 2).verdict),
            [Verdict::Good, Verdict::Good, Verdict::Bad, Verdict::Warning]
        );
        assert_eq!((half_applied(&[]).verdict, half_applied(&[3]).verdict), (Verdict::Good, Verdict::Bad));
        assert_eq!(half_applied(&[3, 4]).what, "half applied: migration 3, 4");
    }

    #[test]
    fn rights_that_are_missing_are_bad() {
        let lacking = ["INSERT on segments".to_owned()];
        assert_eq!((rights(&[]).verdict, rights(&lacking).verdict), (Verdict::Good, Verdict::Bad));
    }
}
