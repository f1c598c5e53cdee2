package seed

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"strings"
	"time"
)

// visit signs in with a one-time link, as a browser does, and reads the first page.
func visit(ctx context.Context, link string) error {
	jar, err := cookiejar.New(nil)
	if err != nil {
		return err
	}
	client := &http.Client{Jar: jar, Timeout: 10 * time.Second}
	u, err := url.Parse(link)
	if err != nil {
		return fmt.Errorf("visit the dashboard: %w", err)
	}
	form := u.Query()
	u.RawQuery = ""
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, u.String(), strings.NewReader(form.Encode()))
	if err != nil {
		return fmt.Errorf("visit the dashboard: %w", err)
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	req.Header.Set("Origin", u.Scheme+"://"+u.Host)
	req.Header.Set("Sec-Fetch-Site", "same-origin")
	resp, err := client.Do(req)
	if err != nil {
		return fmt.Errorf("visit the dashboard: %w", err)
	}
	defer resp.Body.Close()
	page, err := io.ReadAll(io.LimitReader(resp.Body, 4<<20))
	if err != nil {
		return fmt.Errorf("visit the dashboard: %w", err)
	}
	if resp.StatusCode != http.StatusOK || !strings.Contains(string(page), "Sign out") {
		return fmt.Errorf(
			"visit the dashboard: %s answered %d without a signed-in page",
			resp.Request.URL.Path,
			resp.StatusCode,
		)
	}
	return nil
}
