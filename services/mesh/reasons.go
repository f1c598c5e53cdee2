package mesh

// Reasons are all reasons for which a peer or a request is refused.
var Reasons = []Reason{
	NoCertificate, Plaintext, TLSVersion, Unparseable, ProofOfPossession, HandshakeTimeout, HungUp,
	PeerRefused, HandshakeFailed, Resumed, NoIdentity, NoURI, ManyURIs, Scheme,
	NoPath, Query, Fragment, UserInfo, Port, EmptyDomain, DomainCharacter,
	PercentEncoding, PathSegment, TrailingSlash, SegmentCharacter, TooLong, LeafIsCA, LeafSignsCerts,
	LeafSignsCRLs, NoDigitalSignature, NoKeyUsage, KeyUsageNotCritical, ExtendedKeyUsage, IntermediateNotCA, IntermediateUsage,
	SignerWithPath, URINotCritical, Expired, NotYetValid, UnknownIssuer, BadSignature, SelfSigned,
	PathLength, CriticalExtension, NameConstraint, ForeignDomain, OtherDomainsCA, Unlisted, NotAdmitted,
	UnexpectedPeer, NotForCaller,
}
