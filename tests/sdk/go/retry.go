// Retries that obey what the service tells: copy this into yours.
//
// A call is made again where that is safe and can help, until its context ends. It knows
// the reasons of docs/errors.md, and nothing of what is called.

package main

import (
	"context"
	"math/rand"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// Attempts is how often a call is made at most.
const Attempts = 8

// Sleep waits, or returns before that with the context's error.
type Sleep func(ctx context.Context, wait time.Duration) error

// Retry calls until there is an answer, or until it must not call again. Repeatable is
// whether making the call twice is making it once: a read, a Set without condition and
// if_version, or anything that carries a request_id. The context's deadline holds for all
// of it.
func Retry(ctx context.Context, repeatable bool, call func(context.Context) error) error {
	return RetryWith(ctx, repeatable, Attempts, sleep, call)
}

// RetryWith is Retry with another number of attempts and another sleep.
func RetryWith(ctx context.Context, repeatable bool, attempts int, sleep Sleep, call func(context.Context) error) error {
	for attempt := 1; ; attempt++ {
		err := call(ctx)
		if err == nil {
			return nil
		}
		wait, again := pause(err, repeatable, attempt)
		deadline, bounded := ctx.Deadline()
		if !again || attempt >= attempts || bounded && wait >= time.Until(deadline) {
			return err
		}
		if sleep(ctx, wait) != nil {
			return err
		}
	}
}

func sleep(ctx context.Context, wait time.Duration) error {
	select {
	case <-time.After(wait):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// pause tells how long to wait before the next attempt, and whether there is one.
func pause(err error, repeatable bool, attempt int) (time.Duration, bool) {
	reason, told := Explain(err)
	// Never sooner than told, later each time, and not all clients at the same moment.
	backoff := 5 * time.Second
	if attempt < 7 {
		backoff = 50 * time.Millisecond << (attempt - 1)
	}
	if told > backoff {
		backoff = told
	}
	spread := backoff + time.Duration(rand.Int63n(int64(backoff)/2+1))
	switch reason {
	case "RATE_LIMITED", "QUOTA_EXCEEDED":
		// Refused until a time that the service tells to the millisecond.
		return told, told > 0
	case "STORE_UNAVAILABLE", "OVERLOADED", "DRAINING", "REQUEST_IN_PROGRESS", "RESTORE_IN_PROGRESS":
		// Refused before anything was done, and better in a moment.
		return spread, true
	case "OUTCOME_UNKNOWN":
		return spread, repeatable
	case "":
		// Nobody knows whether it came through.
		return spread, repeatable && status.Code(err) == codes.Unavailable
	}
	return 0, false
}

// Explain tells the reason of an error, and what its RetryInfo says; zero for what it has not.
func Explain(err error) (reason string, delay time.Duration) {
	for _, detail := range status.Convert(err).Details() {
		switch detail := detail.(type) {
		case *errdetails.ErrorInfo:
			if detail.Domain == "persistence.riptide" {
				reason = detail.Reason
			}
		case *errdetails.RetryInfo:
			delay = detail.RetryDelay.AsDuration()
		}
	}
	return reason, delay
}
