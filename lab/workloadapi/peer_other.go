//go:build !linux

package workloadapi

import (
	"errors"
	"net"
)

var errLinux = errors.New("attesting processes needs Linux")

func peerPID(*net.UnixConn) (int32, error) { return 0, errLinux }

func startTime(int) (string, error) { return "", errLinux }
