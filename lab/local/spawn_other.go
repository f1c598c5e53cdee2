//go:build !linux

package local

import (
	"context"
	"errors"
	"os/exec"
	"syscall"
)

var errLinux = errors.New("the local runtime needs Linux")

func credentials(account) *syscall.SysProcAttr { return &syscall.SysProcAttr{} }

type nursery struct{}

func newNursery() *nursery { return &nursery{} }

func (*nursery) start(*exec.Cmd, account, syscall.Signal) error { return errLinux }

func killUsers([]int) {}

func adoptOrphans() error { return errLinux }

func reapOrphans(context.Context, func(int) bool) {}
