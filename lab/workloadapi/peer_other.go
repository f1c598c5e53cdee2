//go:build !linux

package workloadapi

import (
	"errors"
	"net"
)

var errLinux = errors.New("attesting processes needs Linux")

func peerOf(*net.UnixConn) (pid int32, uid int, err error) { return 0, 0, errLinux }

func startTime(int) (string, error) { return "", errLinux }
