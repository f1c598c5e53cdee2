package main

import (
	"fmt"

	"example.org/security-training/lab"
	"example.org/security-training/lab/control"
	"example.org/security-training/lab/local"
	"example.org/security-training/services/env"
)

// checkDevDir refuses LMS_DEV_DIR for a runtime whose learning system has no folder on this machine.
func checkDevDir(runtime string) error {
	dir, err := control.DevDirOf(env.Process)
	if err != nil || dir == "" || runtime == local.RuntimeName {
		return err
	}
	return &lab.Error{
		Code: lab.ExitUsage,
		What: "read pages from LMS_DEV_DIR",
		Why:  fmt.Errorf("it is for the local runtime, and this lab is of the %s runtime", runtime),
		Try:  "LMS_DEV_DIR=$PWD/services/lms/site lab up --runtime local",
	}
}
