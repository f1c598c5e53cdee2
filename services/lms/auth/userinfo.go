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

// mostOfUserInfo is the most bytes of an answer of the UserInfo endpoint.
const mostOfUserInfo = 64 << 10

// claims are the claims about a person that are used, of the ID token and the UserInfo endpoint.
type claims struct {
	Subject  string   `json:"sub"`
	Email    string   `json:"email"`
	Verified boolean  `json:"email_verified"`
	Roles    []string `json:"roles"`
}

// boolean is a JSON boolean that some providers write as a string.
type boolean bool

// UnmarshalJSON implements json.Unmarshaler.
func (b *boolean) UnmarshalJSON(text []byte) error {
	switch string(text) {
	case "true", `"true"`:
		*b = true
	case "false", `"false"`, "null":
		*b = false
	default:
		return errors.New("want true or false")
	}
	return nil
}

// authorized checks the authorized party of an ID token by OpenID Connect Core 1.0, section 3.1.3.7, rules 3 to 5: a
// token with several audiences must name one, and one that is named must be this client. That the client is among the
// audiences is verified elsewhere.
func authorized(id *oidc.IDToken, client string) error {
	var c struct {
		Party *string `json:"azp"`
	}
	if err := id.Claims(&c); err != nil {
		return fmt.Errorf("authorized party: %w", err)
	}
	switch {
	case c.Party == nil && len(id.Audience) > 1:
		return fmt.Errorf("%d audiences without an authorized party", len(id.Audience))
	case c.Party != nil && *c.Party != client:
		return errors.New("the authorized party is another client")
	}
	return nil
}

// complete adds to c, the claims of an ID token, those of the UserInfo endpoint. In the code flow a provider returns
// the claims of the scopes email and profile there, and may omit them from the ID token (OpenID Connect Core 1.0,
// section 5.4). An email address and whether it is verified are always taken from the same source.
func (p *Provider) complete(ctx context.Context, found *oidc.Provider, token *oauth2.Token, c *claims) error {
	endpoint := found.UserInfoEndpoint()
	if endpoint == "" {
		return nil
	}
	info, err := p.userInfo(ctx, endpoint, token)
	if err != nil {
		return err
	}
	if info.Subject == "" || info.Subject != c.Subject { // section 5.3.2
		return &badToken{errors.New("the claims of the UserInfo endpoint are about another subject")}
	}
	if c.Email == "" {
		c.Email, c.Verified = info.Email, info.Verified
	}
	for _, role := range info.Roles {
		if !slices.Contains(c.Roles, role) {
			c.Roles = append(c.Roles, role)
		}
	}
	return nil
}

// userInfo requests the claims of the UserInfo endpoint. It returns a *badToken for an answer that is refused or
// invalid.
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
