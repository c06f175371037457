//! Requests over the control socket: a line `METHOD PATH`, then the body.

use spotsim::control::Command;

pub fn check(input: &[u8]) {
    let mut lines = input.splitn(2, |byte| *byte == b'\n');
    let Ok(line) = str::from_utf8(lines.next().unwrap_or_default()) else {
        return;
    };
    let (method, path) = line.split_once(' ').unwrap_or((line, ""));
    match Command::parse(method, path, lines.next().unwrap_or_default()) {
        Ok(Command::Trigger { plan, to }) => {
            let body = serde_json::to_vec(&plan).unwrap();
            let again = Command::parse(method, path, &body);
            let expected = Ok(Command::Trigger { plan, to });
            assert_eq!(again, expected, "written and read again");
        }
        Ok(_) => {}
        Err(refusal) => {
            let status = refusal.status.as_u16();
            assert!([400, 404, 405, 413].contains(&status), "{refusal:?}");
            assert_eq!(status == 405, refusal.allow.is_some(), "{refusal:?}");
            let is_a_line = !refusal.error.is_empty() && !refusal.error.contains('\n');
            assert!(is_a_line, "{refusal:?}");
        }
    }
}
