//! DNS messages: only what one question for an address and its answer need (RFC 1035, section 4).

use std::net::Ipv4Addr;

/// How long a client may keep an answer, in seconds. It is short because pods come and go.
const TIME_TO_LIVE: u32 = 2;
const KIND_ADDRESS: u16 = 1;
const KIND_ANY: u16 = 255;
const HEADER: usize = 12;
const NO_SUCH_NAME: u8 = 3;
const NOT_IMPLEMENTED: u8 = 4;

/// The answer to a message; `None` if the message is not a question.
///
/// `find` gets the name in lower case without the last dot. It returns the addresses, or nothing if there is no such
/// name. An answer longer than `limit` bytes is cut and marked so, and the client asks again over TCP.
pub(crate) fn answer(
    message: &[u8],
    find: impl FnOnce(&str) -> Option<Vec<Ipv4Addr>>,
    limit: usize,
) -> Option<Vec<u8>> {
    let header = message.get(..HEADER)?;
    let is_answer = header[2] & 0x80 != 0;
    if is_answer {
        return None;
    }
    let operation = header[2] >> 3 & 0xf;
    let (name, end) = read_name(message, HEADER)?;
    let kind = u16::from_be_bytes(message.get(end..end + 2)?.try_into().ok()?);
    let question = message.get(HEADER..end + 4)?;

    let (status, addresses) = match (operation, find(&name)) {
        (0, Some(addresses)) if matches!(kind, KIND_ADDRESS | KIND_ANY) => (0, addresses),
        (0, Some(_)) => (0, Vec::new()),
        (0, None) => (NO_SUCH_NAME, Vec::new()),
        _ => (NOT_IMPLEMENTED, Vec::new()),
    };
    let room = limit.saturating_sub(HEADER + question.len()) / 16;
    let is_cut = addresses.len() > room;
    let count = addresses.len().min(room);

    let mut answer = Vec::with_capacity(HEADER + question.len() + 16 * count);
    answer.extend_from_slice(&header[..2]);
    // An answer, with authority. "Recursion desired" is copied from the question.
    answer.push(0x84 | header[2] & 0x79 | if is_cut { 0x02 } else { 0 });
    answer.push(0x80 | status);
    for number in [1, u16::try_from(count).ok()?, 0, 0] {
        answer.extend_from_slice(&number.to_be_bytes());
    }
    answer.extend_from_slice(question);
    for address in addresses.iter().take(count) {
        // The name is the one at the beginning of the question.
        answer.extend_from_slice(&[0xc0, HEADER as u8]);
        answer.extend_from_slice(&KIND_ADDRESS.to_be_bytes());
        answer.extend_from_slice(&1_u16.to_be_bytes());
        answer.extend_from_slice(&TIME_TO_LIVE.to_be_bytes());
        answer.extend_from_slice(&4_u16.to_be_bytes());
        answer.extend_from_slice(&address.octets());
    }
    Some(answer)
}

/// Reads a name without compression, which questions never use. Returns the name and where it ends.
fn read_name(message: &[u8], start: usize) -> Option<(String, usize)> {
    let mut name = String::new();
    let mut position = start;
    loop {
        let length = usize::from(*message.get(position)?);
        position += 1;
        if length == 0 {
            return Some((name, position));
        }
        if length > 63 || name.len() > 255 {
            return None;
        }
        let label = std::str::from_utf8(message.get(position..position + length)?).ok()?;
        if !name.is_empty() {
            name.push('.');
        }
        name.push_str(&label.to_ascii_lowercase());
        position += length;
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::answer;

    fn question(name: &str, kind: u16) -> Vec<u8> {
        let mut message = vec![0xab, 0xcd, 0x01, 0, 0, 1, 0, 0, 0, 0, 0, 0];
        for label in name.split('.') {
            message.push(label.len() as u8);
            message.extend_from_slice(label.as_bytes());
        }
        message.push(0);
        message.extend_from_slice(&kind.to_be_bytes());
        message.extend_from_slice(&[0, 1]);
        message
    }

    fn find(name: &str) -> Option<Vec<Ipv4Addr>> {
        (name == "web.default.svc.cluster.local").then(|| vec![Ipv4Addr::new(10, 96, 0, 7)])
    }

    #[test]
    fn a_known_name_has_its_address_whatever_its_case() {
        let asked = question("Web.default.svc.cluster.LOCAL", 1);
        let shown = answer(&asked, find, 512).expect("an answer");
        assert_eq!(shown[..12], [0xab, 0xcd, 0x85, 0x80, 0, 1, 0, 1, 0, 0, 0, 0]);
        assert_eq!(shown[12..asked.len()], asked[12..]);
        assert_eq!(shown[asked.len()..], [0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 2, 0, 4, 10, 96, 0, 7]);
    }

    #[test]
    fn another_kind_of_address_is_empty_and_another_name_is_unknown() {
        let shown = answer(&question("web.default.svc.cluster.local", 28), find, 512).expect("an answer");
        assert_eq!(shown[3..8], [0x80, 0, 1, 0, 0]);
        let shown = answer(&question("web.other.svc.cluster.local", 1), find, 512).expect("an answer");
        assert_eq!(shown[3..8], [0x83, 0, 1, 0, 0]);
    }

    #[test]
    fn too_many_addresses_are_cut_and_marked() {
        let shown = answer(&question("a.b", 1), |_| Some(vec![Ipv4Addr::LOCALHOST; 100]), 512).expect("an answer");
        assert!(shown.len() <= 512, "{}", shown.len());
        assert_eq!(shown[2] & 0x02, 0x02);
    }

    #[test]
    fn anything_but_a_question_gets_no_answer() {
        for message in [&[][..], &[0; 11], &question("a.b", 1)[..16], &[0, 0, 0x80, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 1]]
        {
            assert_eq!(answer(message, find, 512), None, "{message:?}");
        }
    }
}
