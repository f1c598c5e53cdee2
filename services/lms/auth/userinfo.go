package auth

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"slices"

	"github.com/coreos/go-oidc/v3/oidc"
	"golang.org/x/oauth2"
)

// mostOfUserInfo is how many bytes of an answer of the UserInfo endpoint are read.
const mostOfUserInfo = 64 << 10

// claims are what a provider says of a person, beyond what is verified with the ID token.
type claims struct {
	Subject  string   `json:"sub"`
	Email    string   `json:"email"`
	Verified truth    `json:"email_verified"`
	Roles    []string `json:"roles"`
}

// truth is a boolean, which some providers write as a string.
type truth bool

// UnmarshalJSON implements json.Unmarshaler.
func (t *truth) UnmarshalJSON(b []byte) error {
	switch string(b) {
	case "true", `"true"`:
		*t = true
	case "false", `"false"`, "null":
		*t = false
	default:
		return errors.New("neither true nor false")
	}
	return nil
}

// authorized checks for whom an ID token was made, by OpenID Connect Core 1.0, section 3.1.3.7, rules 3 to 5: one for
// several audiences says that this client is the authorized party, and one that says who that is means this client.
// That the client is among the audiences is verified before.
func authorized(id *oidc.IDToken, client string) error {
	var c struct {
		Party *string `json:"azp"`
	}
	if err := id.Claims(&c); err != nil {
		return fmt.Errorf("authorized party: %w", err)
	}
	switch {
	case c.Party == nil && len(id.Audience) > 1:
		return fmt.Errorf("%d audiences, and no authorized party", len(id.Audience))
	case c.Party != nil && *c.Party != client:
		return errors.New("another authorized party")
	}
	return nil
}

// complete adds to c, the claims of an ID token, what the provider says at its UserInfo endpoint. A code is exchanged
// for an access token as well, and then a provider gives the claims of the scopes email and profile there, and need not
// in the ID token (OpenID Connect Core 1.0, section 5.4). An email address and whether it is verified are taken from
// the same place.
func (p *Provider) complete(ctx context.Context, found *oidc.Provider, token *oauth2.Token, c *claims) error {
	endpoint := found.UserInfoEndpoint()
	if endpoint == "" {
		return nil
	}
	told, err := p.userInfo(ctx, endpoint, token)
	if err != nil {
		return err
	}
	if told.Subject == "" || told.Subject != c.Subject { // section 5.3.2: else it may be of anybody
		return &badToken{errors.New("the UserInfo endpoint tells of another subject")}
	}
	if c.Email == "" {
		c.Email, c.Verified = told.Email, told.Verified
	}
	for _, role := range told.Roles {
		if !slices.Contains(c.Roles, role) {
			c.Roles = append(c.Roles, role)
		}
	}
	return nil
}

func (p *Provider) userInfo(ctx context.Context, endpoint string, token *oauth2.Token) (claims, error) {
	var c claims
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, endpoint, nil)
	if err != nil {
		return c, fmt.Errorf("ask for claims: %w", err)
	}
	token.SetAuthHeader(req)
	resp, err := p.HTTP.Do(req)
	if err != nil {
		return c, fmt.Errorf("ask for claims: %w", err)
	}
	defer resp.Body.Close()
	switch {
	case resp.StatusCode >= 500 || resp.StatusCode == http.StatusTooManyRequests:
		return c, fmt.Errorf("ask for claims: %s", resp.Status)
	case resp.StatusCode != http.StatusOK:
		return c, &badToken{fmt.Errorf("the UserInfo endpoint answered %s", resp.Status)}
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, mostOfUserInfo+1))
	if err != nil {
		return c, fmt.Errorf("ask for claims: %w", err)
	}
	kind, _, err := mime.ParseMediaType(resp.Header.Get("Content-Type"))
	if err != nil || kind != "application/json" || len(body) > mostOfUserInfo {
		return c, &badToken{fmt.Errorf("the UserInfo endpoint answered %d bytes of %q", len(body), clip(kind))}
	}
	if err := json.Unmarshal(body, &c); err != nil {
		return c, &badToken{fmt.Errorf("the UserInfo endpoint: %w", err)}
	}
	return c, nil
}
