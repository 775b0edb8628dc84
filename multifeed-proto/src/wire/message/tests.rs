use super::*;
use alloc::vec;
use proptest::prelude::*;

fn limits() -> Limits {
    Limits::default()
}

fn encode(message: &Message) -> Bytes {
    let mut buf = BytesMut::new();
    message.encode(&mut buf);
    assert_eq!(buf.len(), message.encoded_len());
    buf.freeze()
}

fn number() -> impl Strategy<Value = u64> {
    prop_oneof![0u64..300, 0..=MAX_NUMBER]
}

fn blob() -> impl Strategy<Value = Bytes> {
    prop::collection::vec(any::<u8>(), 0..300).prop_map(Bytes::from)
}

fn node() -> impl Strategy<Value = Node> {
    (number(), any::<[u8; 32]>(), number()).prop_map(|(index, hash, size)| Node { index, hash, size })
}

fn signature() -> impl Strategy<Value = Option<[u8; 64]>> {
    prop::option::of((any::<[u8; 32]>(), any::<[u8; 32]>()).prop_map(|(a, b)| {
        let mut signature = [0; 64];
        signature[..32].copy_from_slice(&a);
        signature[32..].copy_from_slice(&b);
        signature
    }))
}

fn message() -> impl Strategy<Value = Message> {
    prop_oneof![
        (prop::collection::vec(".{0,10}", 0..5), any::<bool>())
            .prop_map(|(extensions, ack)| Message::Options(Options { extensions, ack })),
        any::<[bool; 2]>().prop_map(|[uploading, downloading]| Message::Status { uploading, downloading }),
        (number(), prop_oneof![Just(1), number()], prop::option::of(blob()), any::<bool>())
            .prop_map(|(start, length, bitfield, ack)| Message::Have(Have { start, length, bitfield, ack })),
        (number(), number()).prop_map(|(start, length)| Message::Unhave { start, length }),
        (number(), number()).prop_map(|(start, length)| Message::Want { start, length }),
        (number(), number()).prop_map(|(start, length)| Message::Unwant { start, length }),
        (number(), number(), any::<bool>(), number())
            .prop_map(|(index, bytes, hash, nodes)| Message::Request(Request { index, bytes, hash, nodes })),
        (number(), number(), any::<bool>()).prop_map(|(index, bytes, hash)| Message::Cancel { index, bytes, hash }),
        (number(), prop::option::of(blob()), prop::collection::vec(node(), 0..6), signature())
            .prop_map(|(index, value, nodes, signature)| Message::Data(Data { index, value, nodes, signature })),
        (0u64..1 << 50, blob()).prop_map(|(id, body)| Message::Extension { id, body }),
    ]
}

proptest! {
    #[test]
    fn messages_round_trip(message in message()) {
        let body = encode(&message);
        prop_assert_eq!(Message::decode(message.kind(), body, &limits()), Ok(Some(message)));
    }

    #[test]
    fn data_agrees_with_prost(index in number(), value in prop::option::of(blob()), nodes in prop::collection::vec(node(), 0..6), signature in signature()) {
        let theirs = schema::Data {
            index: Some(index),
            value: value.clone(),
            nodes: nodes.iter().map(|node| schema::Node { index: Some(node.index), hash: Some(node.hash.to_vec()), size: Some(node.size) }).collect(),
            signature: signature.map(|signature| signature.to_vec()),
        };
        let ours = Message::Data(Data { index, value, nodes, signature });
        prop_assert_eq!(&encode(&ours)[..], &prost::Message::encode_to_vec(&theirs)[..]);
    }

    #[test]
    fn request_and_have_agree_with_prost(index in number(), bytes in number(), hash in any::<bool>(), nodes in number(), bitfield in blob()) {
        let theirs = schema::Cancel { index: Some(index), bytes: Some(bytes), hash: Some(hash), nodes: Some(nodes) };
        let ours = Message::Request(Request { index, bytes, hash, nodes });
        prop_assert_eq!(&encode(&ours)[..], &prost::Message::encode_to_vec(&theirs)[..]);

        let theirs = schema::Have { start: Some(index), length: Some(bytes), bitfield: Some(bitfield.clone()), ack: hash.then_some(true) };
        let ours = Message::Have(Have { start: index, length: bytes, bitfield: Some(bitfield), ack: hash });
        prop_assert_eq!(&encode(&ours)[..], &prost::Message::encode_to_vec(&theirs)[..]);
    }

    /// If both read something, it is the same; ours refuses what JS refuses and prost does not (groups, wrong sizes), never the
    /// other way round.
    #[test]
    fn any_bytes_as_data(body in prop::collection::vec(prop_oneof![Just(0x08u8), Just(0x12), Just(0x1a), Just(0x22), 0u8..40, any::<u8>()], 0..60)) {
        let body = Bytes::from(body);
        let ours = Message::decode(kind::DATA, body.clone(), &limits());
        let theirs = <schema::Data as prost::Message>::decode(body);
        if let Ok(Some(Message::Data(ours))) = ours {
            let theirs = theirs.unwrap();
            prop_assert_eq!(theirs.index, Some(ours.index));
            prop_assert_eq!(theirs.value, ours.value);
            prop_assert_eq!(theirs.nodes.len(), ours.nodes.len());
        }
    }

    #[test]
    fn any_bytes_as_any_message(kind in 0u8..16, body in prop::collection::vec(any::<u8>(), 0..40)) {
        let _ = Message::decode(kind, Bytes::from(body), &limits());
    }
}

#[test]
fn js_layouts() {
    let request = Message::Request(Request { index: 7, bytes: 0, hash: false, nodes: 11 });
    assert_eq!(&encode(&request)[..], [0x08, 7, 0x10, 0, 0x18, 0, 0x20, 11]);
    let have = |start, length, bitfield, ack| encode(&Message::Have(Have { start, length, bitfield, ack }));
    assert_eq!(&have(7, 1, None, false)[..], [0x08, 7]);
    assert_eq!(&have(7, 1, None, true)[..], [0x08, 7, 0x10, 1, 0x20, 1]);
    assert_eq!(&have(0, 0, Some(Bytes::new()), false)[..], [0x08, 0, 0x10, 0, 0x1a, 0]);
    let status = Message::Status { uploading: false, downloading: false };
    assert_eq!(&encode(&status)[..], [0x08, 0, 0x10, 0]);
    let data = |value| encode(&Message::Data(Data { index: 0, value, nodes: vec![], signature: None }));
    assert_eq!(&data(None)[..], [0x08, 0]);
    assert_eq!(&data(Some(Bytes::new()))[..], [0x08, 0, 0x12, 0]);
}

#[test]
fn defaults_where_fields_are_absent() {
    let decode =
        |kind, body: &'static [u8]| Message::decode(kind, Bytes::from_static(body), &limits()).unwrap().unwrap();
    assert_eq!(decode(kind::HAVE, &[8, 1]), Message::Have(Have { start: 1, length: 1, bitfield: None, ack: false }));
    assert_eq!(decode(kind::UNHAVE, &[8, 1]), Message::Unhave { start: 1, length: 1 });
    assert_eq!(decode(kind::WANT, &[8, 1]), Message::Want { start: 1, length: 0 });
    assert_eq!(decode(kind::STATUS, &[]), Message::Status { uploading: false, downloading: false });
    assert_eq!(decode(kind::REQUEST, &[8, 1]), Message::Request(Request { index: 1, bytes: 0, hash: false, nodes: 0 }));
    assert_eq!(decode(kind::OPTIONS, &[]), Message::Options(Options::default()));
    // Unknown fields of any kind but groups are passed over.
    assert_eq!(
        decode(kind::HAVE, &[8, 1, 0x28, 5, 0x32, 1, 9, 0x39, 0, 0, 0, 0, 0, 0, 0, 0, 0x3d, 0, 0, 0, 0]),
        decode(kind::HAVE, &[8, 1])
    );
}

/// The layout that encoders write is read in one piece, any other field by field: to the same.
#[test]
fn a_node_reads_the_same_in_any_layout() {
    let node = Node { index: 300, hash: [7; 32], size: MAX_NUMBER };
    let number = |tag: u8, value: u64| {
        let mut field = vec![tag];
        varint::encode(value, &mut field);
        field
    };
    let (index, other, size) = (number(0x08, node.index), number(0x08, 9), number(0x18, node.size));
    let hash = [&[0x12, 32][..], &node.hash].concat();
    let unknown = [0x20, 1].to_vec();
    let decode = |fields: &[&Vec<u8>]| {
        let fields: Vec<u8> = fields.iter().copied().flatten().copied().collect();
        let body = [&[0x08, 1, 0x1a, fields.len() as u8][..], &fields].concat();
        match Message::decode(kind::DATA, body.into(), &limits()) {
            Ok(Some(Message::Data(data))) => Ok(data.nodes[0]),
            Ok(other) => panic!("{other:?}"),
            Err(error) => Err(error),
        }
    };
    let plain = [&index, &hash, &size];
    for fields in
        [&plain[..], &[&size, &hash, &index], &[&index, &hash, &size, &unknown], &[&other, &index, &hash, &size]]
    {
        assert_eq!(decode(fields), Ok(node), "{fields:?}");
    }
    assert_eq!(decode(&[&index, &hash, &size, &other]).unwrap().index, 9);
    let padded = [0x08, 0xac, 0x82, 0x80, 0].to_vec();
    assert_eq!(decode(&[&padded, &hash, &size]), Ok(node));
    for gone in 0..3 {
        let rest: Vec<_> = plain.iter().enumerate().filter(|(at, _)| *at != gone).map(|(_, field)| *field).collect();
        assert!(decode(&rest).is_err(), "{rest:?}");
    }
    let (large, cut) = (number(0x18, MAX_NUMBER + 1), hash[..33].to_vec());
    assert!(decode(&[&index, &hash, &large]).is_err() && decode(&[&index, &cut, &size]).is_err());
}
