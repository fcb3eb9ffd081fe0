//! The processes that use the SDK files, as a table for a terminal and as lines of `key: value` for a pipe.

use jiff::Timestamp;

use super::render::{align, clean};
use crate::api::{JobOrigin, RunningJob, Status};
use crate::duration;
use crate::output::Style;

/// A row per process, within 80 columns; empty if it was not asked for.
pub(super) fn table(status: &Status, now: Timestamp, style: Style) -> String {
    let Some(jobs) = &status.job_list else { return String::new() };
    if jobs.is_empty() {
        return "\nno process uses the SDK files\n".to_owned();
    }
    let mut rows: Vec<_> = jobs.iter().map(|job| row(job, now)).collect();
    let mut head = ["PID", "UID", "COMMAND", "PROFILE", "FOR", "JOB", "", "WHERE"].map(str::to_owned);
    for (column, name) in head.iter_mut().enumerate() {
        if rows.iter().all(|row| row[column].is_empty()) {
            name.clear();
        }
    }
    rows.insert(0, head);
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let taken: usize = (0..LAST).map(width).filter(|width| *width > 0).map(|width| width + 2).sum();
    let room = Some(WIDTH.saturating_sub(taken)).filter(|room| *room >= LEAST);
    for (index, row) in rows.iter_mut().enumerate() {
        row[LAST] = match room {
            Some(_) if index == 0 => continue,
            Some(room) => end_of(&row[LAST], room),
            None => String::new(),
        };
    }
    String::from("\n")
        + &align(&rows, |index, _, padded| if index == 0 { style.bold(padded) } else { padded.to_owned() })
}

/// The column that is cut.
const LAST: usize = 7;

fn row(job: &RunningJob, now: Timestamp) -> [String; LAST + 1] {
    let shown = |text: Option<&str>, most| text.map_or("-".to_owned(), |text| cut(&clean(text), most));
    let number = |number: Option<u32>| number.map_or("-".to_owned(), |number| number.to_string());
    let place = match (&job.container, &job.cgroup) {
        (Some(id), _) => format!("container {}", &clean(id).chars().take(12).collect::<String>()),
        (None, Some(cgroup)) => clean(cgroup),
        (None, None) => String::new(),
    };
    [
        number(job.pid),
        number(job.uid),
        shown(job.command.as_deref(), 15),
        cut(&clean(&job.profile), 12),
        duration::text(now.duration_since(job.since).as_secs()),
        scheduler_job(job).map_or(String::new(), |text| cut(&text, 20)),
        origin(job.by).to_owned(),
        place,
    ]
}

/// A block per process.
pub(super) fn blocks(status: &Status) -> String {
    let mut text = String::new();
    for job in status.job_list.iter().flatten() {
        let mut line = |key: &str, value: Option<String>| {
            if let Some(value) = value {
                text += &format!("{key}: {}\n", clean(&value));
            }
        };
        let pid = job.pid.map_or("a process that the daemon does not see".to_owned(), |pid| pid.to_string());
        line("\njob", Some(pid));
        line("profile", Some(job.profile.clone()));
        line("since", Some(job.since.to_string()));
        line("by", Some(origin(job.by).to_owned()).filter(|origin| !origin.is_empty()));
        line("uid", job.uid.map(|uid| uid.to_string()));
        line("command", job.command.clone());
        line("executable", job.executable.clone());
        line("scheduler", scheduler_job(job));
        line("container", job.container.clone());
        line("cgroup", job.cgroup.clone());
    }
    text
}

fn scheduler_job(job: &RunningJob) -> Option<String> {
    let job = job.scheduler_job.as_ref()?;
    let step = job.step.as_ref().map_or(String::new(), |step| format!(".{step}"));
    Some(clean(&format!("{} {}{step}", job.scheduler, job.id)))
}

fn origin(by: JobOrigin) -> &'static str {
    match by {
        JobOrigin::Registered => "",
        JobOrigin::Adopted => "adopted",
        JobOrigin::Held => "held",
    }
}

fn cut(text: &str, most: usize) -> String {
    if text.chars().count() <= most {
        return text.to_owned();
    }
    text.chars().take(most - 1).chain(['…']).collect()
}

/// The end of a path says more than its beginning.
fn end_of(text: &str, most: usize) -> String {
    let length = text.chars().count();
    if length <= most {
        return text.to_owned();
    }
    ['…'].into_iter().chain(text.chars().skip(length + 1 - most)).collect()
}

/// Of a usual terminal.
const WIDTH: usize = 80;

/// Less of it is of no use.
const LEAST: usize = 12;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::status::render::tests::{profile, status};
    use crate::paths::SchedulerJob;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + seconds).expect("in range")
    }

    fn job() -> RunningJob {
        RunningJob {
            profile: "work".into(),
            since: at(0),
            by: JobOrigin::Registered,
            pid: Some(4_194_303),
            uid: Some(1000),
            command: Some("python3".into()),
            executable: Some("/usr/bin/python3".into()),
            cgroup: Some("/user.slice/user-1000.slice/user@1000.service/app.slice/run-u12.scope".into()),
            container: None,
            scheduler_job: None,
        }
    }

    fn shown(jobs: Vec<RunningJob>) -> String {
        let mut status = status(vec![profile()]);
        status.job_list = Some(jobs);
        table(&status, at(7260), Style::plain())
    }

    #[test]
    fn a_plain_job_is_one_line_of_eighty_columns() {
        let text = shown(vec![job()]);
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines[1], "PID      UID   COMMAND  PROFILE  FOR        WHERE");
        assert_eq!(
            lines[2],
            "4194303  1000  python3  work     2 h 1 min  …000.service/app.slice/run-u12.scope"
        );
        assert_eq!((lines.len(), lines[2].chars().count()), (3, 80));
    }

    #[test]
    fn even_the_widest_row_is_readable() {
        let wide = RunningJob {
            profile: "p".repeat(64),
            command: Some("a-long-command-".into()),
            container: Some("0123456789abcdef".repeat(4)),
            scheduler_job: Some(SchedulerJob {
                scheduler: "slurm".into(),
                id: "1234567\x1b[2J".into(),
                step: Some("batch".into()),
            }),
            by: JobOrigin::Adopted,
            ..job()
        };
        let unseen =
            RunningJob { pid: None, uid: None, command: None, cgroup: None, by: JobOrigin::Held, ..job() };
        let text = shown(vec![wide.clone(), unseen]);
        assert!(text.lines().all(|line| line.chars().count() <= 91), "{text}");
        assert!(text.contains("adopted") && text.contains("held") && !text.contains('\x1b'), "{text:?}");
        let mut status = status(vec![profile()]);
        status.job_list = Some(vec![wide]);
        let plain = blocks(&status);
        assert!(plain.starts_with("\njob: 4194303\nprofile: pppp"), "{plain}");
        assert!(plain.contains("\nby: adopted\n") && plain.contains("\nscheduler: slurm 1234567"), "{plain}");
        assert!(plain.contains("\nexecutable: /usr/bin/python3\n") && !plain.contains('\x1b'), "{plain}");
    }

    #[test]
    fn nothing_is_shown_unless_it_was_asked_for() {
        let status = status(vec![profile()]);
        assert_eq!(table(&status, at(0), Style::plain()) + &blocks(&status), "");
        assert!(shown(Vec::new()).contains("no process"));
    }
}
