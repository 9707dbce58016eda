#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use proptest::prelude::*;

use super::*;
use crate::frame::FrameKind;

#[test]
fn compressions_are_written_and_read() {
    for (text, codec, level, display) in [
        ("zstd:3", Codec::Zstd, 3, "zstd:3"),
        ("zstd", Codec::Zstd, 3, "zstd:3"),
        ("zstd:22", Codec::Zstd, 22, "zstd:22"),
        ("zstd:-7", Codec::Zstd, -7, "zstd:-7"),
        ("lz4", Codec::Lz4, 0, "lz4"),
        ("gzip", Codec::Gzip, 6, "gzip:6"),
        ("gzip:9", Codec::Gzip, 9, "gzip:9"),
        ("none", Codec::None, 0, "none"),
    ] {
        let compression: Compression = text.parse().unwrap();
        assert_eq!((compression.codec(), compression.level()), (codec, level), "{text}");
        assert_eq!(compression.to_string(), display);
        assert_eq!(display.parse::<Compression>().unwrap(), compression);
    }
    for text in
        ["", "zstd:", "zstd:0", "zstd:23", "zstd:-8", "gzip:0", "gzip:10", "lz4:1", "none:0", "ZSTD", "xz", "zstd:3:1"]
    {
        let error = text.parse::<Compression>().unwrap_err().to_string();
        assert!(error.contains(&format!("`{text}`")), "{error}");
    }
}

fn body_of(compression: &str, raw: &[u8]) -> (Codec, Vec<u8>) {
    let mut compressor = Compressor::new(compression.parse().unwrap()).unwrap();
    let frame = compressor.compress(FrameKind::Data, raw).unwrap();
    (frame.codec(), frame.body().to_vec())
}

const EVERY: [&str; 8] = ["none", "zstd:-7", "zstd:1", "zstd:3", "zstd:19", "lz4", "gzip:1", "gzip:9"];

#[test]
fn a_body_never_gives_more_or_less_than_announced() {
    let raw = b"holdfast ".repeat(1000);
    for compression in EVERY {
        let (codec, body) = body_of(compression, &raw);
        assert_eq!(decompress(codec, &body, raw.len() as u32).unwrap(), raw);
        for wrong in [0, 1, raw.len() as u32 - 1, raw.len() as u32 + 1] {
            assert!(decompress(codec, &body, wrong).is_err(), "{compression} {wrong}");
        }
        assert!(decompress(codec, &body[..body.len() - 1], raw.len() as u32).is_err(), "{compression}");
    }
    assert!(matches!(decompress(Codec::Zstd, &[], MAX_FRAME_RAW + 1), Err(crate::Fault::TooLong { .. })));
}

#[test]
fn one_compressor_serves_many_frames() {
    for compression in EVERY {
        let mut compressor = Compressor::new(compression.parse().unwrap()).unwrap();
        for length in [0, 1, 100, 70_000, 3] {
            let raw: Vec<u8> = (0..length).map(|index: u32| (index / 7) as u8).collect();
            let frame = compressor.compress(FrameKind::Data, &raw).unwrap();
            assert_eq!(decompress(frame.codec(), frame.body(), length).unwrap(), raw, "{compression} {length}");
        }
    }
}

proptest! {
    #[test]
    fn round_trip(raw in proptest::collection::vec(any::<u8>(), 0..5000), choice in 0..EVERY.len()) {
        let (codec, body) = body_of(EVERY[choice], &raw);
        prop_assert_eq!(decompress(codec, &body, raw.len() as u32).unwrap(), raw);
    }

    #[test]
    fn never_panics(body in proptest::collection::vec(any::<u8>(), 0..300), raw_len in 0_u32..100_000) {
        for codec in Codec::ALL {
            let _ = decompress(codec, &body, raw_len);
        }
    }

    #[test]
    fn never_panics_on_changed_bodies(position in any::<proptest::sample::Index>(), value: u8) {
        let raw = b"holdfast stores pages of eight kibibytes ".repeat(40);
        for compression in EVERY {
            let (codec, mut body) = body_of(compression, &raw);
            let position = position.index(body.len());
            body[position] = value;
            let _ = decompress(codec, &body, raw.len() as u32);
        }
    }
}
