package env_test

import (
	"fmt"
	"time"

	"example.org/security-training/services/env"
)

// A program reads everything that it is told at its start, and reports every fault at once. A main passes env.Process.
func ExampleRead() {
	r := env.Read(env.Map(map[string]string{"DB_HOST": "127.0.0.1", "POLL_EVERY": "5s", "WORKERS": "many"}))
	host := r.Required("DB_HOST")
	every := r.Duration("POLL_EVERY", time.Minute)
	r.Int("WORKERS", 4)
	fmt.Println(host, every)
	fmt.Println(r.Err())
	// Output:
	// 127.0.0.1 5s
	// read settings: WORKERS: "many" is not a whole number
}
