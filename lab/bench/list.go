package bench

import "slices"

// All is every benchmark, in the order in which they run.
func All() []Benchmark {
	return slices.Concat(ofThisProcess(), ofPrograms(), ofALab())
}

// ofThisProcess are the benchmarks that need nothing but this process.
func ofThisProcess() []Benchmark {
	return []Benchmark{
		{
			ID: "handshake",
			What: "new SPIFFE connections by the mesh ÷ mutual handshakes of crypto/tls alone, both X25519MLKEM768 and the " +
				"same chain, no tickets",
			Unit:  "connections/s",
			Good:  0.90,
			Goal:  0.98,
			Bound: AtLeast,
			begin: handshake,
		},
		{
			ID: "requests",
			What: "1 KB posted over a kept HTTP/2 connection of the mesh, with policy and an audit in a file ÷ plain HTTP, " +
				"the same handler",
			Unit:  "requests/s",
			Good:  0.7,
			Goal:  0.9,
			Bound: AtLeast,
			begin: requests,
		},
		{
			ID:    "score",
			What:  "events scored, per core, 50,000 people ÷ json.Unmarshal of the same events",
			Unit:  "events/s",
			Good:  0.5,
			Goal:  1.5,
			Bound: AtLeast,
			begin: score,
		},
		{
			ID: "synth",
			What: "labelled, causally linked vendor records made, per core ÷ gofakeit.Struct and json.Marshal of the same " +
				"schemas",
			Unit:  "records/s",
			Good:  10,
			Goal:  100,
			Bound: AtLeast,
			begin: synth,
		},
	}
}

// ofPrograms are the benchmarks that need the local runtime and its programs.
func ofPrograms() []Benchmark {
	return []Benchmark{
		{
			ID: "up-local",
			What: "lab up from nothing, programs built ÷ a copy of the database's folder, its server's start and every " +
				"program's",
			Unit:  "s",
			Good:  4,
			Goal:  2,
			Bound: AtMost,
			Needs: Programs,
			begin: upLocal,
		},
	}
}

// ofALab are the benchmarks that need a lab of their own.
func ofALab() []Benchmark {
	return []Benchmark{
		{
			ID:    "memory",
			What:  "resident memory of all services, idle",
			Unit:  "MB",
			Good:  250,
			Goal:  80,
			Bound: AtMost,
			Needs: ALab,
			begin: memory,
		},
		{
			ID: "ingest",
			What: "durable events, a collector's acceptance → mTLS → dedup → score → PostgreSQL ÷ COPY of the " +
				"same rows into the same table",
			Unit:  "events/s",
			Good:  0.35,
			Goal:  0.70,
			Bound: AtLeast,
			Needs: ALab,
			begin: ingest,
		},
		{
			ID:    "ingest-replay",
			What:  "the same with 10 % delivered again ÷ one INSERT … UNNEST … ON CONFLICT",
			Unit:  "events/s",
			Good:  0.6,
			Goal:  0.9,
			Bound: AtLeast,
			Needs: ALab,
			begin: ingestReplay,
		},
		{
			ID:    "fresh",
			What:  "from a collector's acceptance until the score shows the event, 99 of 100 within, at half of the ingest rate",
			Unit:  "ms",
			Good:  250,
			Goal:  25,
			Bound: AtMost,
			Needs: ALab,
			begin: fresh,
		},
	}
}
